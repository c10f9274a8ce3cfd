"""Collects where the ranks of a node are and what they have used, while the agent goes on.

A rank writes its stacks from C, stuck or not; its recorder answers if the GIL is not held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from distrun.agent.ending import Tell
from distrun.agent.process_tree import used_by
from distrun.agent.rank import Rank
from distrun.agent.records import LOOK, RECORD, Records
from distrun.processes import send, state_of
from distrun.signal_masks import catches
from distrun.signals import STACKS

_ANSWER_LIMIT_S = 1.0  # of a recorder; one whose GIL is held cannot answer
_STACKS_LIMIT_S = 2.0  # on a busy machine; one that the kernel holds never writes
_LOOK_S = 0.02


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
        self._asked: list[Rank] = []
        """Those that have been sent the signal."""
        self._sizes: list[int] = []
        self._next = 0.0

    @property
    def is_collecting(self) -> bool:
        """Whether stacks are being written: what ends a rank has to wait, or they tell of that."""
        return self._stacks_begun is not None

    def look(self) -> None:
        """Begin to ask every live rank for its counts."""
        self._looks.append(time.monotonic() + _ANSWER_LIMIT_S)
        self._records.ask(LOOK)

    def stacks(self) -> None:
        """Begin to ask every live rank for its collectives and its stacks."""
        self._records.ask(RECORD)
        self._asked = [r for r in self._live() if STACKS and catches(r.pid, STACKS)]
        for rank in self._asked:
            send(rank.pid, STACKS)
        self._sizes = [0] * len(self._asked)
        self._stacks_begun = time.monotonic()
        self._next = self._stacks_begun + _LOOK_S

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
            if self._has_stacks(now - self._stacks_begun):
                self._stacks_begun = None
                self._send_stacks()

    def _has_stacks(self, waited_s: float) -> bool:
        """Return whether all have written, and nobody writes more; or it takes too long."""
        before = self._sizes
        self._sizes = [rank.stacks_nbytes for rank in self._asked]
        written = not self._asked or (all(self._sizes) and self._sizes == before)
        answered = waited_s >= _ANSWER_LIMIT_S or not self._records.awaits(RECORD)
        return waited_s >= _STACKS_LIMIT_S or (written and answered)

    def _send_look(self) -> None:
        live = self._live()
        used = used_by([rank.pid for rank in live])
        told = [{"rank": rank.rank, **_counts(self._known(rank, used))} for rank in live]
        self._tell("looked", ranks=told, monotonic=time.monotonic())

    def _send_stacks(self) -> None:
        live = self._live()
        used = used_by([rank.pid for rank in live])
        for rank in live:
            found = {"stacks": rank.read_stacks(), "state": state_of(rank.pid)}
            self._tell("stacks", rank=rank.rank, **found, **self._known(rank, used))

    def _known(self, rank: Rank, used: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
        known = self._records.known(rank.pid)
        return {"process": used.get(rank.pid), "answer": known.answer, "age_s": known.age_s}


def _counts(known: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of a rank without its collectives: they are for an examination."""
    answer = known["answer"]
    if not answer or not isinstance(trace := answer.get("trace"), dict):
        return known
    trace = {name: value for name, value in trace.items() if name != "entries"}
    return {**known, "answer": {**answer, "trace": trace}}
