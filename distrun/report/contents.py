"""What a report of one run contains; the template puts it on the page."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from distrun.frames import span
from distrun.report import block, setup, waits
from distrun.report.facts import Facts
from distrun.report.goodput import WORDS, Goodput, goodput
from distrun.report.lines import is_number
from distrun.report.panels import system_panels, training_panels
from distrun.report.private import Clean, cleaner
from distrun.report.ranks import rank_table
from distrun.report.scale import seconds
from distrun.report.summary import figures, summary
from distrun.report.timeline import timeline

_MAX_SERIES = 64
_BLOCK_POINTS = 24_000
_MAX_NOTICES = 20
_FAILED = ("failed", "node lost", "hang", "lost")


def contents(facts: Facts) -> dict[str, Any]:
    """Return the variables of the template."""
    record = facts.record
    clean = cleaner(str(record.plan.get("workdir") or ""))
    spent = _goodput(facts)
    restarts = [(mark.at, mark.text) for mark in facts.story.marks if mark.kind == "restart"]
    panels, more, constant = training_panels(
        facts.numbers, record.started_at, [(at, clean(text)) for at, text in restarts]
    )
    told = waits.waits_of(
        facts.numbers,
        facts.story.waits,
        facts.witnesses,
        one_clock=bool(record.plan.get("local")),
    )
    if facts.hang:
        told = waits.Waits()  # of the calls that ended; what matters is the one that did not
    slow = told.straggler()
    told_summary = summary(facts, clean)
    lines = dict(list(facts.numbers.lines.items())[:_MAX_SERIES])
    found: dict[str, Any] = {
        "run_id": clean(record.run_id),
        "title": clean(record.recipe.rpartition("/")[2] or record.recipe),
        "started": utc(record.started_at),
        "ended": utc(facts.end),
        "is_over": record.ended_at is not None,
        "exit_code": record.exit_code,
        "summary": told_summary,
        "figures": [(clean(a), b, c) for a, b, c in figures(facts, spent)],
        "panels": panels,
        "more_names": [clean(name) for name in more[:200]],
        "constant": [(clean(name), value) for name, value in constant[:50]],
        "thinned": facts.numbers.thinned,
        "ranks": rank_table(facts, told, slow),
        "straggler": slow,
        "waits_source": told.source,
        "timeline": timeline(facts, clean) if facts.story.attempts else None,
        "goodput": spent and _shares(spent),
        "hang": _hang(facts, clean),
        "calls": waits.last_calls(facts.witnesses, clean),
        "places": waits.places(facts.witnesses, clean),
        "findings": setup.findings(facts, clean),
        "notices": [clean(text) for text in facts.story.notices[:_MAX_NOTICES]],
        "system": system_panels(facts.numbers, record.started_at, facts.hosts),
        "bench": setup.bandwidths(facts.bench, clean),
        "prediction": setup.prediction(facts),
        "setup": setup.setup(facts, clean),
        "span": span,
        "seconds": seconds,
    }
    found["data"] = {
        "schema": block.SCHEMA,
        "run": found["run_id"],
        "recipe": found["title"],
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "exit_code": record.exit_code,
        "attempts": record.attempts,
        "nnodes": record.nnodes,
        "nproc_per_node": record.nproc_per_node,
        "summary": asdict(told_summary),
        "figures": found["figures"],
        "goodput_s": spent.seconds if spent else None,
        "straggler": slow.rank if slow else None,
        "setup": found["setup"],
    }
    parts = max(10, min(300, _BLOCK_POINTS // (4 * max(1, len(lines)))))
    found["block"] = block.script_text(
        {**found["data"], "series": block.series(lines, parts, clean)}
    )
    return found


def utc(at: float) -> str:
    """Return a time as `2026-01-31 09:30:00 UTC`: the same on every machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _hang(facts: Facts, clean: Clean) -> str:
    """Return who waited for whom, unless the verdict at the head of the page says it."""
    if facts.record.outcome == "hang":
        return ""
    return clean(str(facts.hang.get("sentence") or ""))


def _goodput(facts: Facts) -> Goodput | None:
    waited = facts.hang.get("waited_s") if facts.record.outcome == "hang" else None
    waited_s = waited if is_number(waited) else 0.0
    failed = facts.record.outcome in _FAILED
    times = facts.record.started_at, facts.end
    return goodput(facts.story.attempts, facts.numbers, times, waited_s, failed=failed)


def _shares(spent: Goodput) -> list[dict[str, Any]]:
    whole = spent.total_s or 1.0
    return [
        {"kind": kind, "words": WORDS[kind], "text": seconds(value), "share": 100 * value / whole}
        for kind, value in spent.seconds.items()
        if value > 0.0005 * whole
    ]
