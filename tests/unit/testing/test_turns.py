"""Whose turn it is, where ranks are threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

from distrun.testing.turns import Aborted, Stalled, Turns


def run(turns: Turns, *ranks: Callable[[], object]) -> list[BaseException | None]:
    """Run each rank on its thread to its end; return what it ended with."""
    ends: list[BaseException | None] = [None] * len(ranks)

    def turn(rank: int, fn: Callable[[], object]) -> None:
        try:
            turns.begin(rank)
            fn()
        except (Aborted, Stalled) as error:
            ends[rank] = error
        turns.end(rank)

    threads = [threading.Thread(target=turn, args=each, daemon=True) for each in enumerate(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a rank waits for ever"
    return ends


def test_who_gives_way_goes_on_when_no_other_can() -> None:
    switches: list[tuple[int, int]] = []
    turns, order = Turns(2, lambda a, b: switches.append((a, b))), list[str]()

    def first() -> None:
        for word in ("the other waits", "and cannot go on"):
            turns.give_way(0)
            order.append(word)
        order.append("now it can")

    def second() -> None:
        assert turns.wait_until(1, lambda: len(order) == 3, 60.0)
        order.append("it does")

    assert run(turns, first, second) == [None, None]
    assert order == ["the other waits", "and cannot go on", "now it can", "it does"]
    assert switches == [(0, 1), (1, 0), (0, 1)]


def test_a_rank_alone_gives_way_to_itself() -> None:
    turns = Turns(1, lambda *_: None)
    assert run(turns, lambda: turns.give_way(0)) == [None]


def test_ranks_that_all_wait_for_nothing_are_told_at_once() -> None:
    turns = Turns(3, lambda *_: None)

    def waits(rank: int) -> Callable[[], object]:
        return lambda: turns.wait_until(rank, lambda: False, 3600.0)

    ends = run(turns, waits(0), lambda: None, waits(2))
    assert [type(end) for end in ends] == [Stalled, type(None), Stalled]


def test_turns_go_round_in_rank_order() -> None:
    turns, order = Turns(3, lambda *_: None), list[int]()

    def twice(rank: int) -> Callable[[], None]:
        def fn() -> None:
            for _ in range(2):
                order.append(rank)
                turns.give_way(rank)

        return fn

    run(turns, twice(0), twice(1), twice(2))
    assert order == [0, 1, 2, 0, 1, 2]
