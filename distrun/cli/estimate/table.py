"""The screen of `estimate --best`: the winner, its command, and why the others lost."""

from __future__ import annotations

import shlex

import typer

from distrun.api.advised import Advice, Scored, launch_words
from distrun.api.estimate import Estimate
from distrun.cli.estimate import words
from distrun.cli.screen import render
from distrun.cli.screen.console import plain

_COLUMNS = ("layout", "recompute", "rows", "micro", "device", "step", "tokens/s", "why not")


def show(found: Estimate, advice: Advice) -> None:
    """Print the result of a search."""
    for line in _verdict(found, advice):
        render.prose(plain(line))
    typer.echo()
    rows = [_row(one) for one in advice.rows]
    right = ("rows", "micro", "device", "step", "tokens/s")
    render.table(_COLUMNS, rows, right=right, spare=("tokens/s", "micro", "rows"))
    typer.echo()
    command = launch_words(found, advice.winner) if advice.winner is not None else []
    if command:
        typer.echo(" ".join(shlex.quote(plain(word)) for word in command))
    traced = any(row.traced for row in advice.rows)
    told = "; *: the recipe was traced in this layout" if traced else ""
    render.prose(f"{advice.tried} layouts, all of the same batch; times ± 20 %{told}")


def _verdict(found: Estimate, advice: Advice) -> list[str]:
    size = words.count(found.found.work.parameters)
    what = f"{found.name}, {size} parameters on {words.gpus(found)}"
    best = advice.winner
    if best is None:
        return [f"NOTHING FITS: {what}"]
    return [f"best: {_name(best)}, {words.seconds(best.time.total)} a step", what]


def _name(one: Scored) -> str:
    """Return the mesh in the words of strategies: `pp 2 x fsdp 32`, `ddp 64`."""
    layout = one.candidate.plan.training.layout
    data = {0: "ddp", 1: "zero1", 2: "zero2", 3: "fsdp"}[layout.stage]
    parts = [
        ("pp", layout.pp),
        ("copies" if layout.shard > 1 else data, layout.replicate),
        (data, layout.shard),
        ("cp", layout.cp),
        ("tp", layout.tp),
        ("ep", layout.ep),
    ]
    return " x ".join(f"{name} {size}" for name, size in parts if size > 1) or "one rank"


def _row(one: Scored) -> list[str]:
    step, layout = one.candidate.plan.training.step, one.candidate.plan.training.layout
    tokens = step.rows * step.seq_len * step.accumulate * layout.data
    return [
        _name(one),
        step.recompute,
        str(step.rows),
        str(step.accumulate),
        words.size(one.memory.device) + ("*" if one.traced else " "),
        words.seconds(one.time.total),
        f"{tokens / one.time.total:,.0f}",
        one.why,
    ]
