"""What happened in a run, from its events: attempts, nodes, ranks, failures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from distrun.report.lines import is_number
from distrun.runs.directory import RunDirectory
from distrun.wire import Lines

Event = dict[str, Any]
_FAILURES = ("rank_raised", "rank_ended", "node_lost", "hang")


@dataclass
class Span:
    """When a node or a rank was there, in seconds since the epoch."""

    begin: float
    end: float | None = None
    label: str = ""
    node: int = 0
    exit_code: int | None = None
    lost: bool = False


@dataclass
class Mark:
    """Something at one time."""

    at: float
    kind: str
    """failed, hang, lost, stopping, restart or no progress."""
    text: str
    node: int | None = None


@dataclass
class Attempt:
    """One start of all ranks."""

    number: int
    begin: float
    world_at: float | None = None
    """When all nodes had joined."""
    end: float | None = None
    world_size: int = 0
    nodes: dict[int, Span] = field(default_factory=dict)
    ranks: dict[int, Span] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    reason: str = ""
    """Why it was followed by another one."""
    failed: bool = True
    """False: it was stopped, and left a checkpoint or nothing to do again."""
    waits: dict[int, float] = field(default_factory=dict)
    """For which share of the time each rank waited for others."""


@dataclass
class Story:
    """A run from its first event to its last."""

    attempts: list[Attempt] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    last_at: float = 0.0

    @property
    def marks(self) -> list[Mark]:
        """The marks of all attempts."""
        return [mark for attempt in self.attempts for mark in attempt.marks]

    @property
    def waits(self) -> dict[int, float]:
        """Those of the last attempt in which they are known."""
        return next((each.waits for each in reversed(self.attempts) if each.waits), {})


def events_of(run: RunDirectory) -> Iterator[Event]:
    """Yield the events of a run; lines that a full disk has cut are passed over."""
    lines = Lines(tolerant=True)
    try:
        with open(run.events.open(os.O_RDONLY), "rb") as file:
            while data := file.read(1 << 20):
                for event in lines.feed(data):
                    if isinstance(event.get("event"), str) and is_number(event.get("time")):
                        yield event
    except OSError:
        return  # a run that has not begun has none


def read_story(run: RunDirectory) -> Story:
    """Read the events of a run."""
    story = Story()
    for event in events_of(run):
        at = float(event["time"])
        story.last_at = max(story.last_at, at)
        if event["event"] == "attempt_started":
            if story.attempts and story.attempts[-1].end is None:
                story.attempts[-1].end = at
            story.attempts.append(Attempt(len(story.attempts), at))
        elif event["event"] == "notice":
            story.notices.append(str(event.get("message", "")))
        elif story.attempts:
            _take(story.attempts[-1], event, at)
    return story


def _take(attempt: Attempt, event: Event, at: float) -> None:
    name, node, rank = event["event"], event.get("node"), event.get("rank")
    if name in ("node_stage", "node_joined") and type(node) is int:
        attempt.nodes.setdefault(node, Span(at, label=str(event.get("host", ""))))
    elif name == "world_started":
        attempt.world_at = at
        size = event.get("world_size")
        attempt.world_size = size if type(size) is int else 0
    elif name == "rank_started" and type(rank) is int and type(node) is int:
        attempt.ranks[rank] = Span(at, node=node)
    elif name == "waits" and isinstance(shares := event.get("share"), dict):
        told = {rank: share for rank, share in shares.items() if is_number(share)}
        attempt.waits = {int(r): float(share) for r, share in told.items() if r.isdecimal()}
    elif name == "attempt_ended":
        attempt.failed = bool(event.get("failure"))
    elif name == "ended":
        attempt.end = at
    elif name == "restart":
        attempt.reason, attempt.end = str(event.get("reason", "")), at
        attempt.marks.append(Mark(at, "restart", attempt.reason))
    if name in ("stopping", "no_progress"):
        said = event.get("reason") or event.get("sentence")
        attempt.marks.append(Mark(at, name.replace("_", " "), str(said or "")))
    elif name in _FAILURES:
        _fail(attempt, event, at)


def _fail(attempt: Attempt, event: Event, at: float) -> None:
    name, node, rank = event["event"], event.get("node"), event.get("rank")
    known = node if type(node) is int else None
    if name == "hang":
        verdict = event.get("verdict")
        said = verdict.get("sentence", "") if isinstance(verdict, dict) else ""
        attempt.marks.append(Mark(at, "hang", str(said)))
    elif name == "node_lost":
        if known in attempt.nodes:
            attempt.nodes[known].end, attempt.nodes[known].lost = at, True
        said = str(event.get("why") or event.get("host") or "")
        attempt.marks.append(Mark(at, "lost", said, known))
    elif type(rank) is int and name == "rank_ended":
        code = event.get("exit_code")
        span = attempt.ranks.setdefault(rank, Span(at, node=known or 0))
        span.end, span.exit_code = at, code if type(code) is int else None
    elif type(rank) is int and not any(mark.kind == "failed" for mark in attempt.marks):
        report = event.get("report")
        kind = report.get("type", "") if isinstance(report, dict) else ""
        attempt.marks.append(Mark(at, "failed", f"rank {rank}: {kind}", known))
