"""Texts fit their columns, and say where something was left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrun.cli.screen.width import cut, cut_middle, shortened, width


@pytest.mark.parametrize(
    ("text", "columns"),
    [("", 0), ("abc", 3), ("größe", 5), ("日本", 4), ("e\u0301", 1), ("█▌░…·×", 6), ("\u200b", 0)],
)
def test_a_text_takes_the_columns_that_a_terminal_gives_it(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize(
    ("text", "columns", "end", "middle"),
    [
        ("abcdefgh", 8, "abcdefgh", "abcdefgh"),
        ("abcdefgh", 7, "abcdef…", "abc…fgh"),
        ("abcdefgh", 4, "abc…", "ab…h"),
        ("abcdefgh", 1, "…", "…"),
        ("abcdefgh", 0, "", ""),
        ("日本語です", 6, "日本…", "日…す"),
    ],
)
def test_what_is_left_out_is_marked(text: str, columns: int, end: str, middle: str) -> None:
    assert (cut(text, columns), cut_middle(text, columns)) == (end, middle)


@given(text=st.text("ab日\u0301", max_size=12), columns=st.integers(0, 12))
def test_a_cut_text_fits(text: str, columns: int) -> None:
    assert width(cut(text, columns)) <= columns
    assert width(cut_middle(text, columns)) <= columns


def test_of_a_table_the_widest_name_is_shortened_first() -> None:
    rows = [["run", "state", "n"], ["a" * 20, "s" * 10, "123456789"]]
    assert shortened(rows, [0, 1], 8)[1] == ["aaaaaa…aaaaa", "s" * 10, "123456789"]
    assert shortened(rows, [0, 1], 12)[1] == ["aaaa…aaaa", "ssss…ssss", "123456789"]
    assert shortened(rows, [0, 1], 99)[1] == ["aaaa…aaa", "ssss…sss", "123456789"]
    assert rows[1][0] == "a" * 20
