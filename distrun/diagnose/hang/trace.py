"""The record as trace events, for https://ui.perfetto.dev and chrome://tracing.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from distrun.diagnose.hang import words
from distrun.diagnose.hang.evidence import Collective, Group, Record, Witness

_Event = dict[str, Any]
_Key = tuple[str, int]


def trace_of(witnesses: Mapping[int, Witness]) -> dict[str, Any]:
    """Return the trace: a track for each group of each rank, a slice for each collective.

    The clocks are those of the machines. Arrows lead from the first rank that has called a
    collective to the others. Times are in microseconds since the first call.
    """
    recorded = {rank: w.record for rank, w in sorted(witnesses.items()) if w.record}
    times = [c.created_ns for r in recorded.values() for c in r.collectives if c.created_ns]
    start_ns = min(times, default=0)
    events: list[_Event] = []
    slices: dict[_Key, list[_Event]] = {}
    for rank, record in recorded.items():
        events += _names(rank, witnesses[rank].host, record)
        for call, slice_ in _slices(rank, record, start_ns):
            events.append(slice_)
            if not call.is_p2p:
                slices.setdefault((call.group, call.seq), []).append(slice_)
    for number, alike in enumerate(slices.values(), 1):
        events += _arrows(number, alike)
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"start_ns": str(start_ns)},
    }


def _names(rank: int, host: str, record: Record) -> Iterator[_Event]:
    name = f"rank {rank} on {host}" if host else f"rank {rank}"
    yield {"ph": "M", "pid": rank, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": rank, "name": "process_sort_index", "args": {"sort_index": rank}}
    for track, group in enumerate(record.groups.values()):
        args = {"name": words.group_name(group)}
        yield {"ph": "M", "pid": rank, "tid": track, "name": "thread_name", "args": args}


def _slices(rank: int, record: Record, start_ns: int) -> Iterator[tuple[Collective, _Event]]:
    tracks = {name: track for track, name in enumerate(record.groups)}
    next_ns: dict[str, int] = {}
    newest_ns = max(record.time_ns, *(c.created_ns for c in record.collectives), 0)
    found = []
    for call in reversed(record.collectives):
        end_ns, known = _end(call, next_ns.get(call.group, newest_ns), newest_ns)
        next_ns[call.group] = call.created_ns
        group = record.groups.get(call.group, Group(call.group, "", (), 0, 0))
        slice_ = {
            "ph": "X",
            "pid": rank,
            "tid": tracks.get(call.group, len(tracks)),
            "ts": (call.created_ns - start_ns) / 1000,
            "dur": max(0, end_ns - call.created_ns) / 1000,
            "name": words.numbered(call.op, call.seq),
            "cat": words.short_name(group),
            "args": {
                "group": words.group_name(group),
                "tensor": words.tensor(call),
                "state": "done" if call.done else call.state,
                "end": known,
            },
        }
        found.append((call, slice_))
    yield from reversed(found)


def _end(call: Collective, next_ns: int, newest_ns: int) -> tuple[int, str]:
    """Return when a slice ends, and how that is known."""
    if call.completed_ns:
        return call.completed_ns, "as recorded"
    if call.done:
        return next_ns, "not recorded: at most until the rank's next call in the group"
    return newest_ns, "it has not ended"


def _arrows(number: int, alike: list[_Event]) -> Iterator[_Event]:
    if len(alike) < 2:
        return
    ordered = sorted(alike, key=lambda slice_: (slice_["ts"], slice_["pid"]))
    for place, slice_ in enumerate(ordered):
        phase = "s" if not place else "f" if place == len(ordered) - 1 else "t"
        arrow = {name: slice_[name] for name in ("pid", "tid", "ts", "name", "cat")}
        yield {**arrow, "ph": phase, "id": number, **({"bp": "e"} if phase == "f" else {})}
