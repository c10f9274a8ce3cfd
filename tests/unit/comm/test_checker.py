"""Who is named when a group has died: of three ranks in one process, on a real board."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from distrun.comm.checked.checker import BoardChecker
from distrun.comm.checked.shared_memory import SharedMemoryBoard, new_file
from distrun.processes import start_time

Ranks = list[BoardChecker]


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    path = new_file(3)
    processes = [(os.getpid(), start_time(os.getpid()))] * 3
    boards = [SharedMemoryBoard(path, rank, processes) for rank in range(3)]
    path.unlink()
    yield [BoardChecker(board, "the world", timeout_s=5) for board in boards]
    boards[2].close()


def test_who_left_because_the_group_was_dead_is_not_named_beside_who_left_first(
    ranks: Ranks,
) -> None:
    ranks[0].leave("it is rebuilding the world", dead=True)
    ranks[1].leave("it raised ValueError: no data", dead=False)
    assert ranks[2].absent(wait=True) == "rank 1: it raised ValueError: no data"


def test_who_left_because_the_group_was_dead_is_named_if_nobody_else_has_left(
    ranks: Ranks,
) -> None:
    for rank in (0, 1):
        ranks[rank].leave(f"it was closed at train.py:{rank}", dead=True)
    assert ranks[2].absent(wait=False) == (
        "rank 0: with the group dead, it was closed at train.py:0;"
        " rank 1: with the group dead, it was closed at train.py:1"
    )
