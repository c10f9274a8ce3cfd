"""What was run: the command, the plan, versions, environment; the nodes' bandwidths; a prediction
beside what was measured."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from distrun.report import scale
from distrun.report.chart import Chart, Curve, draw
from distrun.report.facts import Facts
from distrun.report.lines import is_number
from distrun.report.private import Clean, command_line, shown_environment
from distrun.report.summary import step_spread
from distrun.runs.record import MASK, RunRecord

_MAX_NODES = 64
_WARNING = "warning: "


def settings_of(record: RunRecord, clean: Clean) -> list[dict[str, str]]:
    """Return the settings of the plan, each with its source and its reason."""
    told = record.plan.get("settings")
    rows = [row for row in told if isinstance(row, dict)] if isinstance(told, list) else []
    keys = ("name", "value", "source", "why")
    return [{key: clean(str(row.get(key, ""))) for key in keys} for row in rows]


def setup(facts: Facts, clean: Clean) -> dict[str, Any]:
    """Return the command, the plan, the versions and the environment."""
    record = facts.record
    program = record.plan.get("program")
    program = program if isinstance(program, dict) else {}
    words = record.command[1:] or ["launch", record.recipe, *map(str, program.get("args", []))]
    return {
        "command": shlex.join(["distrun", *command_line(words, clean)]),
        "script": clean(record.recipe),
        "settings": settings_of(record, clean),
        "versions": {clean(k): clean(v) for k, v in record.versions.items()},
        "git": clean(record.git),
        "nodes": _nodes(record, clean),
        "environment": _environment(record, clean),
        "job": clean(record.job_id),
    }


def _nodes(record: RunRecord, clean: Clean) -> list[dict[str, str]]:
    told = record.plan.get("nodes")
    nodes = [node for node in told if isinstance(node, dict)] if isinstance(told, list) else []
    keys = ("number", "host", "address")
    return [{key: clean(str(node.get(key, ""))) for key in keys} for node in nodes[:_MAX_NODES]]


def _environment(record: RunRecord, clean: Clean) -> dict[str, str]:
    """Return the variables that the plan sets, joined where nodes have different values."""
    told = record.plan.get("nodes")
    found: dict[str, list[str]] = {}
    for node in told if isinstance(told, list) else ():
        environ = node.get("environ") if isinstance(node, dict) else None
        if isinstance(environ, dict):
            for name, value in shown_environment(environ, clean).items():
                found.setdefault(name, []).append(value)
    secret = record.plan.get("secrets")
    hidden = set(map(str, secret)) if isinstance(secret, list) else set()
    return {
        clean(name): MASK if name in hidden else " | ".join(dict.fromkeys(values))
        for name, values in sorted(found.items())
    }


def findings(facts: Facts, clean: Clean) -> list[str]:
    """Return what the check before the launch has warned of."""
    told = facts.record.plan.get("notes")
    notes = [note for note in told if isinstance(note, str)] if isinstance(told, list) else []
    return [clean(note.removeprefix(_WARNING)) for note in notes if note.startswith(_WARNING)]


def prediction(facts: Facts) -> list[tuple[str, str, str, str]]:
    """Return what was predicted beside what was measured, and their ratio."""
    told = facts.record.prediction
    memory = [v for line in facts.numbers.of("memory_nbytes") for v in line.finite]
    spread = step_spread(facts)
    rows = (
        ("peak memory of a rank", "peak_memory_nbytes", max(memory, default=None), scale.nbytes),
        ("step time", "step_time_s", spread["p50"] if spread else None, scale.seconds),
    )
    found = []
    for label, key, measured, words in rows:
        value = told.get(key)
        if not is_number(value) or value <= 0:
            continue
        beside = (words(measured), f"{measured / value:.2f}") if measured else ("", "")
        found.append((label, words(value), *beside))
    return found


def bandwidths(bench: Mapping[str, Any], clean: Clean) -> list[tuple[str, Markup]]:
    """Return a chart of busbw over sizes for each operation that bench-comm has measured."""
    told = bench.get("rows")
    rows = [row for row in told if isinstance(row, dict)] if isinstance(told, list) else []
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        nbytes, busbw = row.get("nbytes"), row.get("busbw")
        if type(nbytes) is int and nbytes > 0 and is_number(busbw):
            sizes = found.setdefault(clean(str(row.get("op"))), {})
            sizes[nbytes] = max(sizes.get(nbytes, 0.0), float(busbw))
    return [(op, _bandwidth(op, sizes)) for op, sizes in found.items() if len(sizes) > 1]


def _bandwidth(op: str, sizes: Mapping[int, float]) -> Markup:
    xs = sorted(sizes)
    curve = Curve(op, 0, [math.log2(x) for x in xs], [sizes[x] / 1e9 for x in xs])
    return draw(
        Chart(
            [curve],
            f"busbw of {op} in GB/s over the size",
            from_zero=True,
            x_text=lambda power: scale.nbytes(2.0**power),
        )
    )
