"""Every link, anchor and path in the pages leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.docs.pages import PAGES, ROOT, anchors_of, blocks_of, links_of, spans_of

_ROOTS = ("distrun", "docs", "tests", "recipes", "docker", "benchmarks", ".ci")
"""A path in the text that begins with one of them is a file of the repository."""


def _ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_every_relative_link_and_its_anchor_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in links_of(page):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            wrong.append(link)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_every_file_of_the_repository_that_a_page_names_exists(page: Path) -> None:
    comments = re.findall(r"<!-- (.+) -->", page.read_text(encoding="utf-8"))
    words = [word for text in (*spans_of(page), *comments) for word in re.split(r"[\s;,:]+", text)]
    named = [w for w in words if re.match(rf"({'|'.join(map(re.escape, _ROOTS))})/[\w./-]*$", w)]
    modules = [w for w in words if re.match(r"(benchmarks|tests)(\.\w+)+$", w)]
    assert not [name for name in named if not (ROOT / name).exists()]
    for module in modules:
        file = ROOT / module.replace(".", "/")
        assert file.is_dir() or file.with_suffix(".py").is_file(), module


def test_the_readme_leads_to_every_page() -> None:
    linked = {link.partition("#")[0] for link in links_of(ROOT / "README.md")}
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


def test_the_readme_is_a_door() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_a_page_has_no_word_of_the_machine_that_it_was_written_on() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"/tmp/h|/work/|/root/", text), page
        assert "—" not in text, page
        assert all(block.language.strip() != "sh" for block in blocks_of(page)), page
