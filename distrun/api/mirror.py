"""The record of a run that is kept elsewhere, filled from what its `launch --json` prints.

The lines come from a container's log, each after its time, and again after a cut connection. Each
is taken once: a line of `launch --json` has a number, other words are told by their time. A process
that is killed loses nothing: what it wrote after its last checkpoint is taken away and read again.
"""

from __future__ import annotations

import re
import time
from calendar import timegm
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from distrun.api.mirror_files import MirrorFiles
from distrun.runs import record
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from distrun.wire import message_in

Event = dict[str, Any]
_TIME = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?", re.ASCII
)
_NOT_KEPT = ("signal_repeated", "silent", "output", "metrics", "system", "run", "file")
"""Events that are not in a run's events.jsonl."""
OVER = "over"
"""Key of a record's `job`: the job has ended and will not be started again."""
_MOST_RANKS = 1 << 20
_LAST_TIME = 1e11
"""As in a run's record."""


@dataclass
class Position:
    """Up to where the lines were taken."""

    source: str = ""
    """Which container, and which of its starts."""
    time_ns: int = 0
    """Of the last line, since the epoch."""
    same: int = 0
    """How many lines had that time."""
    number: int = 0
    """`seq` of the last line of `launch --json`."""


class Mirror:
    """Writes one run's record; see `open_mirror`.

    Args:
        files: The run's files, which no other process writes.
        found: The run's record.
    """

    def __init__(self, files: MirrorFiles, found: RunRecord) -> None:
        self._files = files
        self.record = found
        state = files.state
        self.position = Position(**{**asdict(Position()), **_known(state.get("position"))})
        self._before = _count(state.get("attempts"))
        """Attempts of earlier containers."""
        self.has_begun = state.get("begun") is True
        """An event of this container's launch has come."""
        self._skip = 0
        self._replays = False
        self.last_words = ""
        """The last line that is none of `launch --json`."""

    @property
    def since(self) -> str:
        """The time of the last line, whole seconds, as RFC 3339; "" before the first."""
        if not self.position.time_ns:
            return ""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.position.time_ns // 10**9))

    def read_from(self, source: str, attempts: int = 0) -> bool:
        """Note that a log is read from its beginning, or from `since`; return whether it is new.

        Args:
            source: Which container, and which of its starts.
            attempts: How many were before it, if the scheduler counts them.
        """
        is_new = source != self.position.source
        if is_new:
            self._before = max(self._before, attempts)
            if self.position.source or attempts:
                self._begin_again()
            self.position = Position(source)
            self.has_begun = False
        self._replays, self._skip = bool(self.position.time_ns), self.position.same
        return is_new

    def take(self, lines: Iterable[bytes]) -> list[str]:
        """Take lines, each after its time; return those that are not of `launch --json`."""
        words: list[str] = []
        for line in lines:
            self._take(line.rstrip(b"\r\n"), words)
        self._files.flush()
        return words

    def end(self, outcome: str, exit_code: int, *, summary: str, hint: str = "") -> None:
        """Record an end that the launch itself has not told."""
        self._write(
            record.ended(
                self.record, outcome, exit_code, self._before + 1, summary=summary, hint=hint
            )
        )

    def settle(self) -> None:
        """Note in the record that the job will not go on."""
        if self.record.job.get(OVER) is not True:
            self._write(replace(self.record, job={**self.record.job, OVER: True}))

    def checkpoint(self) -> None:
        """Make all that was taken last, also if this process is killed."""
        self._files.checkpoint(
            {
                "position": asdict(self.position),
                "attempts": self._before,
                "begun": self.has_begun,
            }
        )

    def close(self) -> None:
        """Let another process write the record."""
        self._files.close()

    def _begin_again(self) -> None:
        """Go on with another container, which knows nothing of the one before."""
        if self.position.source:
            self._before = max(self._before, self.record.attempts)
        self._files.mark(f"attempt {self._before + 1} begins")
        self._files.forget_verdict()
        now = replace(self.record, ended_at=None, outcome="", exit_code=None)
        self._write(replace(now, attempts=self._before + 1, summary="", hint="", where=""))

    def _take(self, line: bytes, words: list[str]) -> None:
        at, text = _split(line)
        replayed = self._is_replayed(at)
        event = message_in(text) if text[:1] == b"{" else None
        number = event.pop("seq", None) if event is not None else None
        if event is not None and isinstance(event.get("event"), str):
            if type(number) is int:
                replayed = number <= self.position.number
            if not replayed:
                self._note_number(number)
                try:
                    self._take_event(event)
                except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                    event = None  # it has the shape of an event, and is none
        else:
            event = None
        if replayed:
            return
        self._note_time(at)
        if event is None:
            said = text.decode(errors="replace")
            self.last_words = said.strip() or self.last_words
            self._files.add_words(said)
            words.append(said)

    def _is_replayed(self, at: int | None) -> bool:
        """Return whether a line was taken before the cut."""
        if not self._replays or at is None or at > self.position.time_ns:
            self._replays = self._replays and at is None
            return False
        if at == self.position.time_ns:
            self._skip -= 1
            return self._skip >= 0
        return True

    def _note_time(self, at: int | None) -> None:
        if at is None:
            return
        if at == self.position.time_ns:
            self.position.same += 1
        else:
            self.position.time_ns, self.position.same = at, 1

    def _note_number(self, number: Any) -> None:
        if type(number) is not int:
            return
        lost = number - self.position.number - 1
        self.position.number = number
        if lost > 0:
            self._files.add_event(
                {
                    "event": "notice",
                    "time": round(time.time(), 3),
                    "message": f"{lost} lines of the run's output are lost: its node keeps only the"
                    " last part of a container's log",
                }
            )

    def _take_event(self, event: Event) -> None:
        name = event["event"]
        if handler := _HANDLERS.get(name):
            handler(self, event)
        self.has_begun = True
        if name not in _NOT_KEPT:
            self._files.add_event(event)

    def _on_output(self, event: Event) -> None:
        said = str(event["line"]).encode(errors="replace") + b"\n"
        self._files.add_output(*_where(event), str(event["stream"]), said, _time_of(event))

    def _on_metrics(self, event: Event) -> None:
        self._files.add_metrics({**event, "values": _mapping(event["values"])})

    def _on_run(self, event: Event) -> None:
        """Take what only the launch in the container knows of the run."""
        nnodes, nproc = _count(event["nnodes"]), _count(event["nproc_per_node"])
        plan = {**self.record.plan, **_mapping(event.get("plan"))}
        known = {str(key): str(value) for key, value in _mapping(event.get("versions")).items()}
        versions = {**self.record.versions, **known}
        now = replace(self.record, nnodes=nnodes, nproc_per_node=nproc, plan=plan)
        self._write(replace(now, versions=versions))

    def _on_world(self, event: Event) -> None:
        nnodes = _count(event["nnodes"])
        nproc = _count(event["world_size"]) // nnodes
        if (nnodes, nproc) != (self.record.nnodes, self.record.nproc_per_node):
            self._write(replace(self.record, nnodes=nnodes, nproc_per_node=nproc))

    def _on_rank_started(self, event: Event) -> None:
        self._files.make_log(*_where(event))

    def _on_rank_ended(self, event: Event) -> None:
        if event["exit_code"] != 0 and event["report"]:
            self._files.add_error(_where(event)[1], _mapping(event["report"]))

    def _on_file(self, event: Event) -> None:
        self._files.add_part(str(event["path"]), str(event["text"]), last=event["last"] is True)

    def _on_ended(self, event: Event) -> None:
        if event.get("verdict") is not None:
            self._files.write_verdict(_mapping(event["verdict"]))
        attempts = event["attempts"] = self._before + _count(event["attempts"])
        self._write(
            replace(
                self.record,
                ended_at=_time_of(event),
                outcome=str(event["outcome"]),
                exit_code=_count(event["exit_code"]),
                summary=str(event["summary"]),
                hint=str(event["hint"]),
                where=str(event.get("where", "")),
                attempts=attempts,
            )
        )

    def _write(self, now: RunRecord) -> None:
        self.record = now
        self._files.write_record(now)


_HANDLERS = {
    "output": Mirror._on_output,
    "metrics": Mirror._on_metrics,
    "system": Mirror._on_metrics,
    "run": Mirror._on_run,
    "world_started": Mirror._on_world,
    "rank_started": Mirror._on_rank_started,
    "rank_ended": Mirror._on_rank_ended,
    "file": Mirror._on_file,
    "ended": Mirror._on_ended,
}


def open_mirror(run: RunDirectory) -> Mirror | None:
    """Return the writer of a run's record; None if another process is that.

    Raises:
        OSError: The run directory cannot be used.
        ValueError: Its record is none.
    """
    if (files := MirrorFiles.of(run)) is None:
        return None
    return Mirror(files, record.read(run))


def _split(line: bytes) -> tuple[int | None, bytes]:
    """Return the time of a line in ns since the epoch, None without one, and what follows it."""
    if (match := _TIME.match(line)) is None:
        return None, line
    try:
        seconds = timegm(time.strptime(match[1].decode(), "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None, line
    zone = match[3].decode()
    if zone != "Z":
        sign = -1 if zone[0] == "-" else 1
        seconds -= sign * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60)
    return seconds * 10**9 + int((match[2] or b"").ljust(9, b"0")), line[match.end() :]


def _where(event: Event) -> tuple[int, int]:
    """Return node and rank; they become parts of a path."""
    node, rank = _count(event["node"]), _count(event["rank"])
    if max(node, rank) >= _MOST_RANKS:
        raise ValueError(f"node {node}, rank {rank}")
    return node, rank


def _time_of(event: Event) -> float:
    told = event.get("time")
    if isinstance(told, (int, float)) and 0 < told < _LAST_TIME:  # NaN is not
        return float(told)
    return time.time()


def _count(value: Any) -> int:
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError(f"{value!r} is no count")
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    return value


def _known(saved: Any) -> dict[str, Any]:
    names = asdict(Position())
    found = saved if isinstance(saved, dict) else {}
    return {name: found[name] for name in names if type(found.get(name)) is type(names[name])}
