"""The pages in Japanese have the blocks, and the sections, of their originals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.docs.pages import ROOT, TRANSLATED, blocks_of, prose_of

_PAIRS = list(TRANSLATED.items())


def _ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def rows_of(page: Path) -> list[int]:
    """Return how many rows each table of a page has."""
    tables = re.findall(r"^\|.*(?:\n\|.*)*", prose_of(page), flags=re.M)
    return [len(table.splitlines()) for table in tables]


@pytest.mark.parametrize(("page", "original"), _PAIRS, ids=_ids)
def test_a_translation_has_the_same_blocks(page: Path, original: Path) -> None:
    own, theirs = ([(b.language, b.text) for b in blocks_of(each)] for each in (page, original))
    assert own == theirs


@pytest.mark.parametrize(("page", "original"), _PAIRS, ids=_ids)
def test_a_translation_has_as_many_sections_and_rows(page: Path, original: Path) -> None:
    headings = [
        [len(marks) for marks in re.findall(r"^(#+) ", prose_of(each), flags=re.M)]
        for each in (page, original)
    ]
    assert headings[0] == headings[1]
    assert rows_of(page) == rows_of(original)


@pytest.mark.parametrize(("page", "original"), _PAIRS, ids=_ids)
def test_the_two_pages_have_the_same_figures(page: Path, original: Path) -> None:
    own, theirs = (
        set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", prose_of(each))) for each in (page, original)
    )
    assert own == theirs
