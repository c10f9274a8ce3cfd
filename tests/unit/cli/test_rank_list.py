"""One way to write a list of ranks, for every option that takes one."""

from __future__ import annotations

import pytest

from distrun.cli.rank_list import rank_list
from distrun.errors import UsageError


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("0", {0}),
        ("0,3", {0, 3}),
        ("0-2,7", {0, 1, 2, 7}),
        ("7, 0", {0, 7}),
        ("2-2", {2}),
        ("0-7", set(range(8))),
        ("1,1", {1}),
    ],
)
def test_a_list_names_ranks(text: str, ranks: set[int]) -> None:
    assert rank_list("--rank", text, 8) == ranks


def test_without_the_option_there_is_no_list() -> None:
    assert rank_list("--rank", None, 8) is None


@pytest.mark.parametrize(
    "text", ["", ",", "a", "0,", "-1", "1-", "3-1", "0--2", "0 3", "1.5", "²", "٣", "0-2-4"]
)
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--only-rank .* is not a list of ranks") as caught:
        rank_list("--only-rank", text, 8)
    assert caught.value.hint == "--only-rank 0,3 or 0-2,7"


@pytest.mark.parametrize(
    ("text", "world_size", "words"),
    [
        ("8", 8, "--rank 8: no rank 8, the ranks are 0 to 7"),
        ("0,6-9", 8, "--rank 0,6-9: no rank 9, the ranks are 0 to 7"),
        ("1", 1, "--rank 1: no rank 1, the ranks are 0 alone"),
        ("0-999999999", 2, "--rank 0-999999999: no rank 999999999, the ranks are 0 to 1"),
    ],
)
def test_a_rank_that_is_not_there_is_named(text: str, world_size: int, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        rank_list("--rank", text, world_size)
    assert str(caught.value) == words
