"""Several runs side by side: their curves, what differs, and since which step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from distrun.report import block, scale
from distrun.report.facts import Facts
from distrun.report.panels import MAX_PANELS, Named, Panel, overlaid
from distrun.report.private import Clean, cleaner
from distrun.report.setup import setup
from distrun.report.summary import step_spread

_OF_EACH_RUN = frozenset(("--rdzv-id", "--master-port", "--node-rank", "runs dir"))
"""Settings that differ between any two runs."""
_MAX_DIFFERENCES = 200
_SAME_STEP_TIME = 0.02


@dataclass(frozen=True)
class Comparison:
    """How runs differ."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    """A row for each run: its name, and a cell for each column."""
    sentences: Sequence[str]
    heads: Sequence[str]
    """Short names of the runs, for the columns of the differences."""
    differences: Sequence[Sequence[str]]
    """What differs, and its value in each run."""
    data: Mapping[str, Any]
    """All of it as plain JSON."""
    variables: Mapping[str, Any] = field(repr=False)
    """What the page shows."""


def compared(facts: Sequence[Facts]) -> Comparison:
    """Return how runs differ from the first one."""
    cleans = [cleaner(str(each.record.plan.get("workdir") or "")) for each in facts]
    pairs = list(zip(facts, cleans, strict=True))
    heads = _short_names([clean(each.record.run_id) for each, clean in pairs])
    told = [_of_run(each, clean) for each, clean in pairs]
    columns, rows = _table(told)
    differences = _differences([_settings(each, clean) for each, clean in pairs])
    first = [_first_difference(facts[0], each) for each in facts[1:]]
    sentences = [
        *(
            _loss_sentence(heads[0], head, found)
            for head, found in zip(heads[1:], first, strict=True)
        ),
        *_time_sentences(heads, told),
    ]
    data = {
        "runs": told,
        "differences": {row[0]: list(row[1:]) for row in differences},
        "first_difference": first,
    }
    variables = {
        "heads": heads,
        "columns": columns,
        "rows": rows,
        "sentences": sentences,
        "differences": differences,
        "panels": _panels(facts, heads),
        "block": block.script_text(data, "distrun.compare/1"),
    }
    return Comparison(columns, rows, sentences, heads, differences, data, variables)


def _short_names(run_ids: Sequence[str]) -> list[str]:
    """Return the ends of the names if they tell the runs apart."""
    ends = [name.rpartition("-")[2] for name in run_ids]
    return ends if len(set(ends)) == len(ends) and all(ends) else list(run_ids)


def _of_run(facts: Facts, clean: Clean) -> dict[str, Any]:
    record, numbers = facts.record, facts.numbers
    spread = step_spread(facts)
    rates = {
        name: median(values)
        for name in numbers.names
        if name.endswith("_per_s") and (values := [v for li in numbers.of(name) for v in li.finite])
    }
    memory = [value for line in numbers.of("memory_nbytes") for value in line.finite]
    loss = numbers.last("loss")
    steps = [line.steps[-1] for line in numbers.lines.values()]
    return {
        "run": clean(record.run_id),
        "outcome": record.outcome or record.state.partition(" on ")[0],
        "ranks": record.nnodes * record.nproc_per_node,
        "duration_s": round(facts.end - record.started_at, 3),
        "steps": max(steps, default=0),
        "loss": None if loss is None else block.short(loss),
        "step_time_s": spread,
        "rates": {clean(name): rate for name, rate in rates.items()},
        "peak_memory_nbytes": max(memory, default=None),
    }


def _table(told: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the heads and a row for each run."""
    rates = list(dict.fromkeys(name for each in told for name in each["rates"]))
    columns = ["outcome", "ranks", "time", "steps", "last loss", "step time p50", "p95"]
    columns += [*(name.replace("_per_s", "/s") for name in rates), "peak memory"]
    rows = []
    for each in told:
        spread = each["step_time_s"] or {}
        loss, memory = each["loss"], each["peak_memory_nbytes"]
        rows.append(
            [
                each["run"],
                each["outcome"],
                str(each["ranks"]),
                scale.seconds(each["duration_s"]),
                f"{each['steps']:g}",
                "" if loss is None else str(loss),
                *(scale.seconds(spread[key]) if key in spread else "" for key in ("p50", "p95")),
                *(scale.number(each["rates"][n]) if n in each["rates"] else "" for n in rates),
                "" if memory is None else scale.nbytes(memory),
            ]
        )
    return columns, rows


def _settings(facts: Facts, clean: Clean) -> dict[str, str]:
    """Return all that was set, by name: the plan, arguments, versions, nodes, environment."""
    told = setup(facts, clean)
    program = facts.record.plan.get("program")
    args = program.get("args") if isinstance(program, dict) else None
    found = {"script": told["script"], "git": told["git"]}
    found |= {f"version of {name}": value for name, value in told["versions"].items()}
    found |= _arguments([clean(str(word)) for word in args] if isinstance(args, list) else [])
    found |= {row["name"]: row["value"] for row in told["settings"]}
    found["hosts"] = ", ".join(dict.fromkeys(node["host"] for node in told["nodes"]))
    return {name: value for name, value in found.items() if name not in _OF_EACH_RUN}


def _arguments(words: Sequence[str]) -> dict[str, str]:
    """Return the script's options by name, and what is no option together."""
    found: dict[str, str] = {}
    rest: list[str] = []
    name = ""
    for word in words:
        if word.startswith("--"):
            name, sign, value = word.partition("=")
            found[f"argument {name}"] = value if sign else "yes"
            name = "" if sign else name
        elif name:
            found[f"argument {name}"], name = word, ""
        else:
            rest.append(word)
    return found | ({"arguments": " ".join(rest)} if rest else {})


def _differences(settings: Sequence[Mapping[str, str]]) -> list[list[str]]:
    names = dict.fromkeys(name for each in settings for name in each)
    rows = [[name, *(each.get(name, "") for each in settings)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1][:_MAX_DIFFERENCES]


def _losses(facts: Facts) -> dict[float, float]:
    """Return the loss by step, of the lowest rank; of a step that was done twice the last one."""
    lines = facts.numbers.of("loss")
    lowest = min((line.owner for line in lines), default=0)
    own = sorted((li for li in lines if li.owner == lowest), key=lambda li: li.attempt)
    return {s: v for line in own for s, v in zip(line.steps, line.values, strict=True)}


def _first_difference(first: Facts, other: Facts) -> dict[str, Any] | None:
    """Return the first step whose losses differ at all; None if there is none."""
    mine, theirs = _losses(first), _losses(other)
    shared = sorted(mine.keys() & theirs.keys())
    found: dict[str, Any] = {"steps_compared": len(shared), "step": None}
    for step in shared:
        a, b = mine[step], theirs[step]
        if a != b and not (math.isnan(a) and math.isnan(b)):
            return found | {
                "step": step,
                "first": block.short(a),
                "other": block.short(b),
                "greatest": _greatest(mine, theirs, shared),
            }
    return found if shared else None


def _greatest(
    mine: Mapping[float, float], theirs: Mapping[float, float], shared: Sequence[float]
) -> float | int | str | None:
    """Return the greatest difference where both are finite; None if they never differ there."""
    both = (s for s in shared if math.isfinite(mine[s]) and math.isfinite(theirs[s]))
    greatest = max((abs(mine[s] - theirs[s]) for s in both), default=0.0)
    return block.short(greatest) if greatest else None


def _loss_sentence(first: str, other: str, found: Mapping[str, Any] | None) -> str:
    if found is None:
        return f"{other}: no step has a loss in it and in {first} too"
    if found["step"] is None:
        return f"{other}: its loss is that of {first}, in {found['steps_compared']} steps"
    at_most = "" if found["greatest"] is None else f", by {found['greatest']} at most"
    return (
        f"{other}: its loss differs from that of {first} since step {found['step']:g}"
        f" ({found['first']} and {found['other']}){at_most}"
    )


def _time_sentences(heads: Sequence[str], told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how the step time of each run compares with that of the first one."""
    base, found = told[0]["step_time_s"], []
    for head, each in zip(heads[1:], told[1:], strict=True):
        own = each["step_time_s"]
        if not base or not own or not base["p50"]:
            continue
        ratio = own["p50"] / base["p50"]
        apart = own["p25"] > base["p75"] or own["p75"] < base["p25"]
        if abs(ratio - 1) < _SAME_STEP_TIME:
            found.append(f"{head}: its steps take as long as those of {heads[0]}")
            continue
        word = "within the spread of both"
        if apart:
            word = "slower" if ratio > 1 else "faster"
        found.append(
            f"{head}: its steps take {ratio:.3g} times as long as those of {heads[0]}, {word}"
        )
    return found


def _panels(facts: Sequence[Facts], heads: Sequence[str]) -> list[Panel]:
    """Return a chart for each name that at least two runs have logged."""
    names = list(dict.fromkeys(name for each in facts for name in each.numbers.names))
    panels = []
    for name in names:
        group: list[Named] = []
        for head, each in zip(heads, facts, strict=True):
            lines = each.numbers.of(name)
            lowest = min((line.owner for line in lines), default=0)
            last = max((line.attempt for line in lines), default=0)
            group += [
                Named(line, head, line.attempt < last, each.record.started_at)
                for line in lines
                if line.owner == lowest
            ]
        values = {value for named in group for value in named.line.values}
        if len({named.name for named in group}) > 1 and (len(values) > 1 or name == "loss"):
            panels.append(overlaid(name, group))
    return [panel for panel in panels if panel.over_steps][:MAX_PANELS]
