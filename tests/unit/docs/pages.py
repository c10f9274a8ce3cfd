"""Reads the pages: their fenced blocks, spans of code, links and headings.

A comment before a block says how it is tested: `<!-- project: NAME -->` names the directory of its
files in tests/scenarios/docs/, the commands of `<!-- before: COMMAND; COMMAND -->` are run before
it, and `<!-- not run: WHY -->` keeps a console block from being run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROJECTS = ROOT / "tests" / "scenarios" / "docs"
TRANSLATED = {
    ROOT / "README.ja.md": ROOT / "README.md",
    **{page: ROOT / "docs" / page.name for page in sorted((ROOT / "docs" / "ja").glob("*.md"))},
}
"""A page in Japanese -> its original."""
ORIGINALS = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
PAGES = (*ORIGINALS, *TRANSLATED)
_COMMENT = re.compile(r"<!-- (project|before|not run): (.+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    """Of its first line of text, from 1."""
    language: str
    text: str
    project: str = ""
    before: str = ""
    """Commands that are run before it."""
    not_run: str = ""
    """Why it is not run; "" if it is."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    comment: dict[str, str] = {}
    fence, first, lines = "", 0, list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if fence:
            if line.strip() == "```":
                text = "".join(f"{each}\n" for each in lines)
                told = [comment.get(name, "") for name in ("project", "before", "not run")]
                yield Block(page, first, fence[3:], text, *told)
                fence, comment = "", {}
            else:
                lines.append(line)
        elif line.startswith("```"):
            fence, first, lines = line.strip(), number + 1, []
        elif match := _COMMENT.fullmatch(line.strip()):
            comment = {**comment, match[1]: match[2]}
        elif line.strip():
            comment = {}
    assert not fence, f"{page}: a block has no end"


def prose_of(page: Path) -> str:
    """Return the text of a page outside of its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def spans_of(page: Path) -> list[str]:
    """Return the spans of code in the text of a page."""
    return re.findall(r"`([^`\n]+)`", prose_of(page))


def links_of(page: Path) -> list[str]:
    """Return the targets of the links of a page."""
    return re.findall(r"\]\(([^)\s]+)\)", prose_of(page))


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose_of(page), flags=re.M):
        words = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = 0
        while (name := f"{anchor}-{count}" if count else anchor) in found:
            count += 1
        found.add(name)
    return found


def table_below(page: Path, heading: str, columns: int = 1) -> list[tuple[str, ...]]:
    """Return the first cells of each row of the first table below a heading."""
    _, _, rest = page.read_text(encoding="utf-8").partition(f"{heading}\n")
    rows = re.search(r"^\|.*(?:\n\|.*)*", rest, flags=re.M)
    assert rows, f"{page}: no table below {heading!r}"
    cells = [re.split(r"(?<!\\)\|", row.strip("|")) for row in rows[0].splitlines()[2:]]
    return [tuple(cell.strip() for cell in row[:columns]) for row in cells]


def names_in(rows: list[tuple[str, ...]]) -> set[str]:
    """Return the spans of code in the cells of a table."""
    return {name for row in rows for cell in row for name in re.findall(r"`([^`]+)`", cell)}
