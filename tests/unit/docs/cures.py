"""Writes the tables of docs/troubleshooting.md: `python -m tests.unit.docs.cures`.

A pattern is shown as the shortest text that it matches: its groups as A, B, … which the cure uses
too, what may be anything as an ellipsis.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from distrun.diagnose import cure_table
from distrun.diagnose.cure_table import Cure
from tests.unit.docs.pages import ROOT

_parser: Any = getattr(re, "_parser", None) or importlib.import_module("sre_parse")

SECTIONS: dict[str, tuple[Cure, ...]] = {
    "Imports and packages": cure_table._IMPORTS,
    "Process groups": cure_table._SETUP,
    "Collectives and DistributedDataParallel": cure_table._COLLECTIVES,
    "Processes, memory, the debugger": cure_table._PROCESSES,
    "Checkpoints": cure_table._CHECKPOINTS,
    "GPUs": cure_table._GPU,
    "Tensors and autograd": cure_table._TENSORS,
    "Files, downloads, compilers": cure_table._FILES,
}
"""Heading -> its lines, in the order in which they are tried."""
PAGE = ROOT / "docs" / "troubleshooting.md"
_MADE = "<!-- made by python -m tests.unit.docs.cures, of the table of cures -->\n"


def page() -> str:
    """Return the whole page: what stands above the mark as it is, and the table of cures."""
    top, _, _ = PAGE.read_text(encoding="utf-8").partition(_MADE)
    return top + _MADE + "".join(_section(heading, cures) for heading, cures in SECTIONS.items())


def _section(heading: str, cures: tuple[Cure, ...]) -> str:
    rows = "".join(f"| {_error(cure)} | {_cell(_letters(cure.words))} |\n" for cure in cures)
    return f"\n### {heading}\n\n| error | what helps |\n|---|---|\n{rows}"


def _error(cure: Cure) -> str:
    texts = [_cell(_tidy(text)) for text in _examples(list(_parser.parse(cure.pattern.pattern)))]
    return "<br>".join(f"`` {text} ``" if "`" in text else f"`{text}`" for text in texts)


def _examples(nodes: list[Any]) -> list[str]:
    """Return a text for each alternative of a pattern; of those in a group, of the first alone."""
    for at, (name, value) in enumerate(nodes):
        if str(name) == "BRANCH":
            before, after = _text(nodes[:at]), _text(nodes[at + 1 :])
            return [before + _text(branch) + after for branch in value[1]]
    return [_text(nodes)]


def _text(nodes: Any) -> str:
    return "".join(_one(str(name), value) for name, value in nodes)


def _one(name: str, value: Any) -> str:
    if name == "LITERAL":
        return chr(value)
    if name == "SUBPATTERN":
        group, _, _, inside = value
        return _text(inside) if group is None else chr(ord("A") + group - 1)
    if name == "IN" and all(str(kind) == "LITERAL" for kind, _ in value):
        return chr(value[0][1])
    if name == "BRANCH":
        return _text(value[1][0])
    if name in ("MAX_REPEAT", "MIN_REPEAT"):
        low, _, inside = value
        text = _text(inside)
        return text if low == 1 and text != "…" else "…" if text == "…" or low else ""
    return "" if name in ("AT", "ASSERT", "ASSERT_NOT") else "…"


def _tidy(text: str) -> str:
    return re.sub(r"…+", "…", text).strip()


def _letters(words: str) -> str:
    named = re.sub(r"\\(\d)", lambda m: chr(ord("A") + int(m[1]) - 1), words)
    return named.replace("__", r"\_\_")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("{rank}", "R").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
