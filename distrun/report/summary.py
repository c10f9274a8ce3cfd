"""The first screen of a report: how the run ended, why, what to do, and its key figures."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from distrun.frames import shortened
from distrun.report import scale
from distrun.report.facts import Facts
from distrun.report.goodput import Goodput
from distrun.report.panels import step_times
from distrun.report.private import Clean

_TEXT_CHARS = 20_000
_GOOD, _GOES_ON = ("succeeded",), ("running", "submitted")


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    state: str
    mood: str
    """good, bad or open: the colour of the page's head."""
    sentence: str
    place: str = ""
    """File and line of the failure, with its source."""
    traceback: str = ""
    last_words: str = ""
    notes: list[str] = field(default_factory=list)
    cures: list[str] = field(default_factory=list)
    commands: list[tuple[str, str]] = field(default_factory=list)
    """What to run next, and what for."""


def summary(facts: Facts, clean: Clean) -> Summary:
    """Return the verdict, the evidence for it, and the next step."""
    record, verdict = facts.record, facts.verdict
    state = record.outcome or record.state.partition(" on ")[0]
    mood = "good" if state in _GOOD else "open" if state in _GOES_ON else "bad"
    source = str(verdict.get("source") or "")
    file = str(verdict.get("file") or "")
    notes = [str(verdict.get("note") or ""), str(facts.hang.get("note") or ""), _others(verdict)]
    return Summary(
        state,
        mood,
        clean(shortened(_sentence(facts, state), 1000)),
        clean(f"{file}:{verdict.get('line')}" + (f"  {source}" if source else "")) if file else "",
        clean(shortened(str(verdict.get("traceback") or ""), _TEXT_CHARS)),
        clean(shortened(str(verdict.get("last_words") or ""), _TEXT_CHARS)),
        [clean(note) for note in notes if note],
        [clean(line) for line in shortened(record.hint, 2000).splitlines() if line.strip()],
        _commands(facts, mood),
    )


def _sentence(facts: Facts, state: str) -> str:
    record = facts.record
    took = scale.seconds(facts.end - record.started_at)
    if state == "succeeded":
        again = record.attempts - 1
        restarts = f" after {again} restart{'s' * (again > 1)}" if again else ""
        return f"{record.summary or 'every rank ended with 0'}, in {took}{restarts}"
    if record.summary:
        return record.summary
    if state == "lost":
        return "the supervisor of the run ended without recording how the run ended"
    if state == "submitted":
        return "the job waits to be started"
    return f"the run goes on; its last sign of life came {took} after its start"


def _others(verdict: Mapping[str, Any]) -> str:
    others, same = verdict.get("others"), verdict.get("same")
    if type(others) is not int or not others:
        return ""
    ranks = "1 other rank" if others == 1 else f"{others} other ranks"
    alike = f", {same} with the same error" if same else ""
    return f"{ranks} failed after it{alike}"


def _commands(facts: Facts, mood: str) -> list[tuple[str, str]]:
    name = shlex.quote(facts.record.run_id)
    rank = facts.verdict.get("rank")
    found = []
    if mood == "bad" and type(rank) is int:
        found.append((f"distrun logs {name} --rank {rank}", "the output of the rank that failed"))
    if facts.hang or any(w.record or w.stacks for w in facts.witnesses.values()):
        found.append((f"distrun diagnose {name}", "the last collectives and stacks of each rank"))
    if mood == "open":
        found.append((f"distrun logs {name} -f", "follow it"))
        found.append((f"distrun stacks {name}", "where its ranks are now"))
    if facts.numbers.lines:
        found.append((f"distrun export {name} --csv run.csv", "all numbers as a table"))
    hint = facts.record.hint
    return [(command, what) for command, what in found if command not in hint]


def figures(facts: Facts, spent: Goodput | None) -> list[tuple[str, str, str]]:
    """Return the key figures: a label, the value, and a remark."""
    record, numbers = facts.record, facts.numbers
    found = [("time", scale.seconds(facts.end - record.started_at), "")]
    steps = [line.steps[-1] for line in numbers.lines.values()]
    if steps:
        of = f"of {numbers.total_steps}" if numbers.total_steps else ""
        found.append(("steps", f"{max(steps):g}", of))
    for name, label in (("loss", "last loss"), ("validation_loss", "last validation loss")):
        if (value := numbers.last(name)) is not None:
            found.append((label, scale.number(value), ""))
    if spread := step_spread(facts):
        p50, p95 = scale.seconds(spread["p50"]), scale.seconds(spread["p95"])
        found.append(("step time", p50, f"p50; p95 {p95}"))
    for name in numbers.names:
        if name.endswith("_per_s") and (values := [v for n in numbers.of(name) for v in n.finite]):
            found.append((name.replace("_per_s", "/s"), scale.number(median(values)), "median"))
    if values := [v for line in numbers.of("mfu") for v in line.finite]:
        found.append(("MFU", f"{100 * median(values):.3g} %", "median"))
    if values := [v for line in numbers.of("memory_nbytes") for v in line.finite]:
        found.append(("peak memory", scale.nbytes(max(values)), "of a rank"))
    if spent:
        found.append(("goodput", f"{100 * spent.share:.0f} %", "of the time, in steps that count"))
    ranks = f"{record.nnodes} node{'s' * (record.nnodes != 1)} × {record.nproc_per_node or '?'}"
    found.append(("ranks", str(record.nnodes * record.nproc_per_node or "?"), ranks))
    if record.attempts > 1:
        found.append(("attempts", str(record.attempts), ""))
    return found


def step_spread(facts: Facts) -> dict[str, float] | None:
    """Return p25, p50, p75 and p95 of the time of a step; None for fewer than two steps."""
    lines = facts.numbers.of("step_time_s") or step_times(facts.numbers)
    values = [value for line in lines for value in line.finite]
    if len(values) < 2:
        return None
    cuts = quantiles(values, n=20, method="inclusive")
    return {"p25": cuts[4], "p50": cuts[9], "p75": cuts[14], "p95": cuts[18]}
