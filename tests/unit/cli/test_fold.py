"""Folding holds a line for a moment, and neither loses nor reorders a rank's lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrun.cli.screen.fold import WINDOW_S, Fold
from distrun.frames import span

ROUNDING_S = 1e-9


def test_equal_lines_become_one_that_names_their_ranks() -> None:
    fold = Fold()
    for rank in (2, 0, 1):
        fold.take((0, rank), "stdout", b"loading\ndone %d\n" % rank, 0.0)
    shown = [(entry.line, [rank for _, rank in entry.ranks]) for entry in fold.due(WINDOW_S)]
    assert shown == [(b"loading\n", [2, 0, 1]), *((b"done %d\n" % r, [r]) for r in (2, 0, 1))]


def test_equal_lines_of_two_streams_stay_apart() -> None:
    fold = Fold()
    fold.take((0, 0), "stdout", b"same\n", 0.0)
    fold.take((0, 1), "stderr", b"same\n", 0.0)
    assert [entry.stream for entry in fold.rest()] == ["stdout", "stderr"]


def test_one_rank_that_repeats_itself_is_shown_as_often() -> None:
    fold = Fold()
    fold.take((0, 0), "stdout", b"again\nagain\n", 0.0)
    assert [entry.ranks for entry in fold.rest()] == [[(0, 0)], [(0, 0)]]


PRINTED = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from([b"a\n", b"b\n", b"a\nb\n"]), st.floats(0.0, 0.15)
    ),
    max_size=60,
)


@given(printed=PRINTED)
def test_each_rank_keeps_its_lines_in_order_and_none_waits_too_long(
    printed: list[tuple[int, bytes, float]],
) -> None:
    fold = Fold()
    shown: dict[int, bytes] = dict.fromkeys(range(4), b"")
    taken: dict[int, bytes] = dict.fromkeys(range(4), b"")
    came: dict[int, list[float]] = {rank: [] for rank in range(4)}
    now = 0.0

    def show(entries: list[object], at: float) -> None:
        for entry in entries:
            for _, rank in entry.ranks:  # type: ignore[attr-defined] # it is a Folded
                shown[rank] += entry.line  # type: ignore[attr-defined]
                assert at - came[rank].pop(0) <= WINDOW_S + 0.15 + ROUNDING_S

    for rank, block, pause_s in printed:
        now += pause_s  # asked as often as this, a line waits no longer than both together
        show(list(fold.due(now)), now)
        fold.take((0, rank), "stdout", block, now)
        taken[rank] += block
        came[rank] += [now] * block.count(b"\n")
    assert not list(fold.due(now - 1))
    show(list(fold.rest()), now)
    assert shown == taken


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ([3], "3"),
        ([0, 1], "0-1"),
        ([7, 0, 2, 1], "0-2,7"),
        ([5, 3, 1], "1,3,5"),
        (list(range(64)), "0-63"),
    ],
)
def test_ranks_are_named_by_their_ranges(ranks: list[int], text: str) -> None:
    assert span(ranks) == text
