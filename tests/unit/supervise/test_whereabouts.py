"""A request for stacks is answered when all live ranks have answered, or are overdue."""

from __future__ import annotations

import pytest

from distrun.supervise import whereabouts
from distrun.supervise.whereabouts import Answer, Request, Whereabouts


def answer(rank: int, stacks: str = "Thread 0x1") -> dict[str, object]:
    return {"rank": rank, "stacks": stacks, "state": "S"}


def test_nobody_is_answered_who_has_not_asked() -> None:
    request = Request()
    request.came(0, Answer("Thread", "S"))
    assert request.answers([0]) is None


def test_an_answer_waits_for_all_that_live_and_comes_once() -> None:
    where = Whereabouts()
    where.ask([], where.of_user)
    where.came(answer(0))
    assert where.of_user.answers([0, 1]) is None
    where.came(answer(1, ""))
    assert where.of_user.answers([0, 1]) == {0: Answer("Thread 0x1", "S"), 1: Answer("", "S")}
    assert where.of_user.answers([0, 1]) is None


def test_a_rank_that_has_ended_meanwhile_is_not_waited_for() -> None:
    where = Whereabouts()
    where.ask([], where.of_user)
    where.came(answer(0))
    assert where.of_user.answers([0]) == {0: Answer("Thread 0x1", "S")}


def test_a_node_that_does_not_answer_is_overdue_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(whereabouts, "_ANSWER_S", 0.0)
    where = Whereabouts()
    where.ask([], where.of_user)
    where.came(answer(0))
    assert where.of_user.answers([0, 3]) == {0: Answer("Thread 0x1", "S"), 3: Answer()}


def test_a_rank_that_answered_and_ended_does_not_stand_for_one_that_has_not() -> None:
    where = Whereabouts()
    where.ask([], where.of_user)
    where.came(answer(5))
    assert where.of_user.answers([0]) is None
    where.came(answer(0))
    assert where.of_user.answers([0]) == {0: Answer("Thread 0x1", "S")}


def test_only_stacks_from_when_the_world_was_stopped_are_those_of_its_end() -> None:
    where = Whereabouts()
    where.ask([], where.of_user)
    where.came(answer(0))
    assert where.at_stop == {}, "an hour before the end"
    where.ask_before_stop([])
    where.came(answer(0, "Thread 0x2"))
    where.ask([], where.of_user)
    where.came(answer(0, "Thread 0x3"))
    assert where.at_stop == {0: Answer("Thread 0x2", "S")}, (
        "where it was, not where its handlers are"
    )


def test_whoever_asks_again_before_the_answer_is_answered_too() -> None:
    where = Whereabouts()
    for _ in range(2):
        where.ask([], where.of_user)
    where.came(answer(0))
    assert where.of_user.answers([0]) is not None
    assert where.of_stragglers.answers([0]) is None, "they have not asked"
