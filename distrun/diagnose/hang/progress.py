"""Since when a rank has made no progress, from looks at it.

Progress is a collective that is called or ends, output, a step's metrics, and CPU time or I/O of
the rank's processes. The time that a rank uses while it waits for others is none: NCCL spins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import takewhile

from distrun.diagnose.hang.evidence import Process, Record, Witness
from distrun.diagnose.places import Frame, in_waiting_loop
from distrun.frames import is_library

_CPU_SHARE = 0.05
"""Of one core. Less is background: a thread of a logger, our own looks."""
_IO_NBYTES_PER_S = 1 << 12
"""A slow link is at work; a rank that is stuck does none at all."""
_FAULTS_PER_S = 20.0
"""A loop that builds something touches new memory."""
_STALE_S = 1.5
"""A rank answers within a second, unless its GIL is held."""
_LINES = 2
"""A loop that only waits has a line or two."""
_SYSTEM_SHARE = 0.05
"""Of one core, in the kernel: a loop that asks whether a file exists is always seen in one call."""
_LOOPING = ("JUMP", "POP_JUMP", "RESUME", "INSTRUMENTED_JUMP", "INSTRUMENTED_RESUME")
"""Instructions at which a thread that runs bytecode lets another one run."""
_PACKAGES = re.compile(r"(site|dist)-packages/(?!torch/(distributed|cuda)/)")
_PICKLING = ("_object", "_object_list")
_DEBUGGERS = ("/pdb.py", "/bdb.py", "/pydevd.py")


@dataclass(frozen=True)
class Look:
    """What one look at a rank has shown."""

    record: Record | None = None
    age_s: float = 0.0
    process: Process | None = None
    printed: int = 0
    """How often it has printed or reported a step so far."""


def waits(record: Record | None) -> bool:
    """Return whether a rank is in a collective, or in another call that needs its peers.

    A call that has not ended is no proof: gloo never notes the end of a send that nobody waits for.
    Functions that take objects pickle them before they call a collective.
    """
    if record is None or record.moves:
        return False
    if any(group.enqueued > group.completed for group in record.groups.values()):
        return True
    return record.call is not None and not record.call.function.endswith(_PICKLING)


def waited_s(witness: Witness) -> float:
    """Return for how long a rank has waited in a collective, as far as its record tells."""
    record = witness.record
    if record is None:
        return 0.0
    called = [each.created_ns for each in record.collectives if not each.done]
    return max(0.0, (record.time_ns - min(called)) / 1e9) if called else 0.0


def is_debugged(look: Look) -> bool:
    """Return whether a person holds the rank: then time says nothing."""
    traced = look.process is not None and look.process.is_traced
    frames = look.record.frames if look.record else ()
    return traced or any(frame.file.endswith(_DEBUGGERS) for frame in frames)


@dataclass
class Progress:
    """One rank."""

    idle_since: float
    """When it was last seen to make progress."""
    is_busy: bool = False
    """It has used CPU time since, in a loop that does nothing but wait."""
    last: Look = field(default_factory=Look)
    _looked_at: float | None = None
    _lines: set[int] = field(default_factory=set)

    @property
    def is_watched(self) -> bool:
        """Whether it has been looked at."""
        return self._looked_at is not None

    def looked(self, at: float, look: Look) -> None:
        """Note a look at the rank."""
        before, self.last = self.last, look
        took_s = at - self._looked_at if self._looked_at is not None else None
        self._looked_at = at
        if took_s is None or took_s <= 0 or is_debugged(look) or _has_moved(before, look):
            self._progressed(at)
        elif _works(before, look, took_s):
            if not self._only_loops(before, look, took_s):
                self._progressed(at)
            else:
                self.is_busy = True

    def answered(self, at: float, record: Record) -> None:
        """Note the counts in a rank's answer: they may have changed since the last look."""
        if _counts(record) != _counts(self.last.record):
            self.last = replace(self.last, record=record)
            self._progressed(at)

    def skip(self, gap_s: float, at: float) -> None:
        """Leave out the time in which nobody could look, until now."""
        self.idle_since = min(self.idle_since + gap_s, at)

    def witness(self, rank: int, host: str, at: float) -> Witness:
        """Return what is known of it, without its stacks."""
        look = self.last
        idle_s = at - self.idle_since if self.is_watched else None
        return Witness(
            *(rank, host, look.record, look.age_s),
            process=look.process,
            idle_s=idle_s,
            is_busy=self.is_busy,
        )

    def _progressed(self, at: float) -> None:
        self.idle_since, self.is_busy = at, False
        self._lines.clear()

    def _only_loops(self, before: Look, now: Look, took_s: float) -> bool:
        """Return whether its CPU time goes into a `while` loop that waits for something."""
        if now.record is None or before.record is None or now.age_s > _STALE_S:
            return False
        assert now.process is not None and before.process is not None
        path = _user_path(now.record)
        if not path or not _is_same(path, _user_path(before.record)) or _computes(now.record):
            return False
        self._lines.add(path[0].line)
        if len(self._lines) > _LINES or _does_io(before.process, now.process, took_s):
            return False
        if now.process.faults - before.process.faults > _FAULTS_PER_S * took_s:
            return False
        runs = now.record.moves or now.record.opcode.startswith(_LOOPING)
        asks = now.process.system_s - before.process.system_s > _SYSTEM_SHARE * took_s
        return (runs or asks) and in_waiting_loop(path[0].file, path[0].line)


def _computes(record: Record) -> bool:
    """Return whether the user's line is in a package that may compute, as a model's layers do."""
    inner = takewhile(lambda frame: is_library(frame.file), record.frames)
    return any(_PACKAGES.search(frame.file) for frame in inner)


def _has_moved(before: Look, now: Look) -> bool:
    """Return whether it has called a collective, ended one, or printed."""
    return now.printed != before.printed or _counts(now.record) != _counts(before.record)


def _counts(record: Record | None) -> dict[str, tuple[int, int]]:
    groups = record.groups if record else {}
    return {name: (group.enqueued, group.completed) for name, group in groups.items()}


def _works(before: Look, now: Look, took_s: float) -> bool:
    """Return whether its processes use CPU time or do I/O, and it does not wait for others."""
    if now.process is None or before.process is None:
        return False
    if waits(now.record) and now.age_s <= _STALE_S:  # an old record tells nothing of now
        return False
    cpu_s = now.process.cpu_s - before.process.cpu_s
    return cpu_s > _CPU_SHARE * took_s or _does_io(before.process, now.process, took_s)


def _does_io(before: Process, now: Process, took_s: float) -> bool:
    return now.io_nbytes - before.io_nbytes > _IO_NBYTES_PER_S * took_s


def _user_path(record: Record) -> list[Frame]:
    """Return the calls in the user's code, the innermost first."""
    return [frame for frame in record.frames if not is_library(frame.file)]


def _is_same(path: list[Frame], other: list[Frame]) -> bool:
    """Return whether two paths are of the same calls; the innermost may be on another line."""
    innermost = [(frame.file, frame.function) for frame in (*path[:1], *other[:1])]
    return path[1:] == other[1:] and len(set(innermost)) == 1
