"""Attempts and nodes on one time axis, as parts of its width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distrun.report import scale
from distrun.report.facts import Facts
from distrun.report.lines import Numbers
from distrun.report.private import Clean
from distrun.report.story import Attempt

_LEGEND = {
    "start": "start",
    "train": "training",
    "end": "after the last step",
    "lost": "lost",
    "node": "node",
}
"""Kind of a bar -> its words."""
_MAX_ATTEMPTS, _MAX_NODES, _MAX_MARKS = 50, 64, 200


def timeline(facts: Facts, clean: Clean) -> dict[str, Any]:
    """Return the rows, the marks and the ticks; positions are percentages of the whole time."""
    begin, end = facts.record.started_at, facts.end
    whole = max(end - begin, 1e-3)

    def at(time: float) -> float:
        return round(min(100.0, max(0.0, 100 * (time - begin) / whole)), 3)

    attempts = facts.story.attempts
    shown = attempts[:_MAX_ATTEMPTS]
    rows = [
        _attempt_row(each, facts.numbers, at, end, is_last=each is attempts[-1]) for each in shown
    ]
    numbers = sorted({node for attempt in shown for node in attempt.nodes})
    hosts = facts.hosts
    rows += [
        {
            "label": clean(hosts.get(node, f"node{node}")),
            "bars": [bar for attempt in shown for bar in _node_bars(attempt, node, at, end)],
        }
        for node in numbers[:_MAX_NODES]
    ]
    marks = [
        {"at": at(mark.at), "kind": mark.kind, "text": clean(mark.text), "after": mark.at - begin}
        for mark in facts.story.marks[:_MAX_MARKS]
    ]
    axis = scale.exact_axis(0.0, whole, scale.time_unit(whole))
    ticks = [{"at": at(begin + t), "text": scale.clock(t)} for t in axis.ticks(4)]
    return {
        "rows": rows,
        "marks": marks,
        "ticks": ticks,
        "kinds": [
            kind for kind in _LEGEND if any(b["kind"] == kind for r in rows for b in r["bars"])
        ],
        "words": _LEGEND,
        "left_out": {
            "attempts": len(attempts) - len(shown),
            "nodes": max(0, len(numbers) - _MAX_NODES),
        },
    }


def _bar(kind: str, begin: float, end: float, title: str) -> dict[str, Any]:
    return {"kind": kind, "at": begin, "width": round(max(end - begin, 0.2), 3), "title": title}


def _attempt_row(
    attempt: Attempt, numbers: Numbers, at: Any, end: float, *, is_last: bool
) -> dict[str, Any]:
    own = [line for (_, _, number), line in numbers.lines.items() if number == attempt.number]
    over = attempt.end or end
    first = min((line.times[0] for line in own), default=over)
    last = max((line.times[-1] for line in own), default=over)
    kinds = [
        ("start", attempt.begin, first, "start: until the first step"),
        ("train", first, last, "training"),
        ("lost" if attempt.failed and not is_last else "end", last, over, "after the last step"),
    ]
    bars = [
        _bar(kind, at(a), at(b), f"{title}, {scale.seconds(b - a)}")
        for kind, a, b, title in kinds
        if b > a
    ]
    return {"label": f"attempt {attempt.number + 1}", "bars": bars}


def _node_bars(attempt: Attempt, node: int, at: Any, end: float) -> Iterator[dict[str, Any]]:
    if (span := attempt.nodes.get(node)) is None:
        return
    over = span.end or attempt.end or end
    yield _bar(
        "lost" if span.lost else "node",
        at(span.begin),
        at(over),
        f"attempt {attempt.number + 1}" + (", lost" if span.lost else ""),
    )
