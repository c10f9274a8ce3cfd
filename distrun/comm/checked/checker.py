"""Compares each call of a group between its ranks, and raises on every rank what is wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from threading import current_thread
from typing import Any, NoReturn

from torch import Tensor

from distrun.comm.checked.board import Board, Entry, State
from distrun.comm.checked.record import Record, decode, encode
from distrun.comm.checked.report import ranks_text, table
from distrun.comm.checked.users import Users
from distrun.comm.checked.watch import Watch
from distrun.comm.errors import (
    CollectiveMismatchError,
    GroupDeadError,
    RankLateError,
    RankLeftError,
    TwoThreadsError,
)
from distrun.comm.site import call_site

_ROOTED = ("src=", "dst=")
_REMEMBERED = 64
_ENDING_S = 1.0
_VICTIM = "with the group dead, "


class BoardChecker:
    """Checks the calls of one group, on one rank.

    Args:
        board: The board shared with the other ranks.
        name: The name of the group.
        timeout_s: How long a rank may be late.
        watch: Tells the board where this rank is.
    """

    def __init__(
        self, board: Board, name: str, timeout_s: float, watch: Watch | None = None
    ) -> None:
        self.board = board
        self._watch = watch
        if watch is not None:
            watch.add(board)
        self._name = name
        self._timeout_s = timeout_s
        self._users = Users(self)
        self._number = 0
        self._diverged: list[list[Record]] = []

    def check(self, call: str, tensors: Sequence[Tensor], rule: Mapping[str, Any]) -> None:
        """Return if every rank makes this call.

        Raises:
            CollectiveMismatchError: They do not; raised on every rank.
        """
        if other := self._users.enter():
            self._refuse_second_thread(call, other)
        self._number += 1
        record = encode(call, tensors, rule, call_site(), self._users.label())
        entries = self.board.exchange(self._number, record, self._timeout_s)
        if entries is not None:
            self._judge(call, entries)

    def _refuse_second_thread(self, call: str, other: str) -> NoReturn:
        self.board.give_up(self._number)  # the others must not wait for calls that will not be made
        raise TwoThreadsError(
            f"two threads of this rank use {self._name} at once: {current_thread().name} calls"
            f" {call} at {call_site()} while {other} is inside of a collective; their results"
            " may be swapped, and the group is dead",
            "give each thread a group of its own, by world.split, or make all calls in one",
        )

    def absent(self, *, wait: bool) -> str:
        """Return which ranks have closed the group or ended, and how, or "".

        A rank that left because the group was dead for it is named only if there is no other.

        Args:
            wait: A connection was closed: it may take a moment until the peer's end is visible.
        """
        deadline = time.monotonic() + (_ENDING_S if wait else 0)
        while True:
            gone = self.board.absent()
            first = {rank: how for rank, how in gone.items() if not how.startswith(_VICTIM)}
            if first or time.monotonic() >= deadline:
                break
            time.sleep(0.01)
        return "; ".join(f"rank {rank}: {how}" for rank, how in sorted((first or gone).items()))

    def leave(self, why: str, *, dead: bool) -> None:
        """Tell the others that this rank makes no more calls, and close the board."""
        if self._watch is not None:
            self._watch.remove(self.board)
        self.board.leave(_VICTIM + why if dead else why)
        self.board.close()

    def _judge(self, call: str, entries: Sequence[Entry]) -> None:
        what = f"{call} #{self._number}"
        ranks: dict[State, list[int]] = {state: [] for state in State}
        for rank, entry in enumerate(entries):
            ranks[entry.state].append(rank)
        if gave_up := ranks[State.GAVE_UP]:
            self.board.give_up(self._number)
            raise GroupDeadError(
                f"{ranks_text(gave_up)} of {self._name} gave up waiting for {what} of the others"
                f" after {self._timeout_s:g} s; the group is dead\n{table(entries)}",
                "world.rebuild() on every rank makes a new group; comm.init(timeout_s=…) waits"
                " longer",
            )
        if left := ranks[State.LEFT]:
            raise RankLeftError(
                f"{ranks_text(left)} of {self._name} left before {what}; nothing was sent\n"
                + table(entries),
                "find out how that rank ended; all ranks must make equally many calls",
            )
        if late := ranks[State.LATE]:
            self.board.give_up(self._number)
            raise RankLateError(
                f"{ranks_text(late)} of {self._name} {'have' if len(late) > 1 else 'has'} not"
                f" called {what} within {self._timeout_s:g} s; nothing was sent, and the group is"
                f" dead\n{table(entries)}",
                "every rank must make the same calls in the same order; world.rebuild() makes a"
                " new group, comm.init(timeout_s=…) waits longer",
            )
        self._compare(what, entries)

    def _compare(self, what: str, entries: Sequence[Entry]) -> None:
        records = [decode(entry.record) for entry in entries]
        if len({record.what for record in records}) > 1:
            raise CollectiveMismatchError(
                f"the ranks of {self._name} made different calls as call #{self._number};"
                f" nothing was sent\n{table(entries)}",
                "every rank must make the same calls, with the same shapes and dtypes, in the"
                " same order",
            )
        rooted = any(mark in records[0].details for mark in _ROOTED)
        if rooted or records[0].call == "barrier":
            # the root and the others often call from two branches; a barrier has no result to swap
            return
        self._require_order(what, records, entries)

    def _require_order(
        self, what: str, records: Sequence[Record], entries: Sequence[Entry]
    ) -> None:
        """Detect calls of equal shapes in swapped order, which nothing else detects.

        Ranks may call from different lines, as in two branches. But if, after a few calls, they
        have called from the same lines in different orders, their results are swapped.
        """
        self._diverged = [*self._diverged, list(records)][-_REMEMBERED:]
        paths = [
            tuple(calls[rank].place for calls in self._diverged) for rank in range(len(records))
        ]
        if len(set(paths)) == 1 or any(Counter(path) != Counter(paths[0]) for path in paths):
            return
        self._diverged = []
        orders = "\n".join(
            f"  rank {rank}: " + ", then ".join(path) for rank, path in enumerate(paths)
        )
        raise CollectiveMismatchError(
            f"the ranks of {self._name} made the calls up to {what} in different orders; the"
            f" results of the earlier ones are swapped\n{orders}\n{table(entries)}",
            "every rank must make the same calls in the same order; the order of sets, of"
            " files in a directory and of threads may differ between ranks",
        )
