"""Collects where the ranks of a node are and what they have used, while the agent goes on.

A rank is asked for its stack as `stack_request` says; its recorder answers if the GIL is not held.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from distrun.agent.ending import Tell
from distrun.agent.process_tree import used_by
from distrun.agent.rank import Rank
from distrun.agent.ras import RasRequest
from distrun.agent.records import LOOK, RECORD, Records
from distrun.agent.stack_request import StackRequest
from distrun.processes import state_of

_ANSWER_LIMIT_S = 1.0  # of a recorder; one whose GIL is held cannot answer
_STACKS_LIMIT_S = 3.0  # on a busy machine; one that the kernel holds never writes
_LOOK_S = 0.02
_LAST_CALLS = 64
"""How many calls of a rank a look tells: the same ones of all ranks, but for a few."""


class Looks:
    """Carries out the commands `look` and `stacks`.

    Args:
        records: What the ranks tell of themselves.
        live: Returns the ranks that live.
        tell: Sends events to the supervisor.
    """

    def __init__(self, records: Records, live: Callable[[], Sequence[Rank]], tell: Tell) -> None:
        self._records, self._live, self._tell = records, live, tell
        self._looks: list[float] = []
        """Until when each waits for answers."""
        self._stacks_begun: float | None = None
        self._requests: list[StackRequest] = []
        self._ras = RasRequest({}, ())
        self._next = 0.0

    @property
    def is_collecting(self) -> bool:
        """Whether stacks are being written: what ends a rank has to wait, or they tell of that."""
        return self._stacks_begun is not None

    def look(self) -> None:
        """Begin to ask every live rank for its counts."""
        self._looks.append(time.monotonic() + _ANSWER_LIMIT_S)
        self._records.ask(LOOK)

    def stacks(self, *, examines: bool) -> None:
        """Begin to ask every live rank for its collectives and its stack.

        Args:
            examines: They are suspected to hang.
        """
        self._stacks_begun = now = time.monotonic()
        self._records.ask(RECORD)
        self._requests = [
            StackRequest(rank, self._records, now, examines=examines) for rank in self._live()
        ]
        self._ras = RasRequest(os.environ, {r.pid for r in self._live()} if examines else ())
        self._next = now

    def due(self) -> Iterator[float]:
        """Yield the times at which to look again."""
        if self._looks:
            yield self._looks[0] if self._records.awaits(LOOK) else 0.0
        if self.is_collecting:
            yield self._next

    def on_time(self) -> None:
        """Send what is complete, or overdue."""
        now = time.monotonic()
        while self._looks and (now >= self._looks[0] or not self._records.awaits(LOOK)):
            del self._looks[0]
            self._send_look()
        if self._stacks_begun is not None and now >= self._next:
            self._next = now + _LOOK_S
            if self._has_stacks(now):
                self._stacks_begun = None
                self._send_stacks()

    def _has_stacks(self, now: float) -> bool:
        """Return whether all have told where they are and their record, or it takes too long."""
        assert self._stacks_begun is not None  # they are being collected
        waited_s = now - self._stacks_begun
        for request in self._requests:
            request.advance(now)
        answered = waited_s >= _ANSWER_LIMIT_S or not self._records.awaits(RECORD)
        told = answered and self._ras.is_done and all(r.is_done for r in self._requests)
        return told or waited_s >= _STACKS_LIMIT_S

    def _send_look(self) -> None:
        live = self._live()
        used = used_by([rank.pid for rank in live])
        ahead_s = time.time() - time.monotonic()
        told = [{"rank": rank.rank, **_counts(self._known(rank, used), ahead_s)} for rank in live]
        self._tell("looked", ranks=told, monotonic=time.monotonic())

    def _send_stacks(self) -> None:
        live = self._live()
        used = used_by([rank.pid for rank in live])
        texts = {request.rank.rank: request.text() for request in self._requests}
        for rank in live:
            found = {"stacks": texts.get(rank.rank, ""), "state": state_of(rank.pid)}
            known = self._known(rank, used)
            if known["answer"] and (entries := self._ras.entries.get(rank.pid)):
                known["answer"] = {**known["answer"], "ras": entries}
            self._tell("stacks", rank=rank.rank, **found, **known)

    def _known(self, rank: Rank, used: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
        known = self._records.known(rank.pid)
        return {"process": used.get(rank.pid), "answer": known.answer, "age_s": known.age_s}


def _counts(known: dict[str, Any], ahead_s: float) -> dict[str, Any]:
    """Return what is known of a rank, and of its collectives only when it has called the last ones
    and which have not ended: the rest is for an examination.

    Args:
        known: What is known.
        ahead_s: How much the wall clock, by which torch notes its calls, is ahead of the other one.
    """
    answer = known["answer"]
    if not answer or not isinstance(trace := answer.get("trace"), dict):
        return known
    calls = [*_last_calls(trace.get("entries"), ahead_s)]
    trace = {**trace, "entries": _left(trace.get("entries"))}
    return {**known, "answer": {**answer, "trace": trace}, "calls": calls}


def _left(entries: object) -> list[Any]:
    """Return the calls that are pending, and of each group the last one that is not."""
    ended: dict[str, Any] = {}
    pending = []
    for entry in entries if isinstance(entries, list) else ():
        try:
            if entry["retired"]:
                ended[str(entry["process_group"])] = entry
            else:
                pending.append(entry)
        except (LookupError, TypeError):
            pass  # as in _last_calls
    return [*pending[-_LAST_CALLS:], *ended.values()]


def _last_calls(entries: object, ahead_s: float) -> Iterator[tuple[str, int, float]]:
    """Yield group, number and time of the last collectives in a record of torch's."""
    for entry in entries[-_LAST_CALLS:] if isinstance(entries, list) else ():
        try:
            if not entry["is_p2p"]:
                at_s = entry["time_created_ns"] / 1e9 - ahead_s
                yield str(entry["process_group"][0]), int(entry["collective_seq_id"]), at_s
        except (ArithmeticError, LookupError, TypeError, ValueError):
            pass  # the script may have answered in place of the recorder
