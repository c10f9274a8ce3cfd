"""The screen of `estimate --best`: the winner, its command, and why the others lost."""

from __future__ import annotations

import shlex

import typer

from distrun.api.estimate import Advice, Estimate, Scored, launch_words
from distrun.cli.estimate import words
from distrun.cli.screen import render
from distrun.cli.screen.console import plain

_COLUMNS = ("layout", "mesh", "recompute", "rows", "micro", "device", "step", "tokens/s", "why not")


def show(found: Estimate, advice: Advice) -> None:
    """Print the result of a search."""
    for line in _verdict(found, advice):
        render.prose(plain(line))
    typer.echo()
    rows = [_row(one) for one in advice.rows]
    right = ("rows", "micro", "device", "step", "tokens/s")
    render.table(_COLUMNS, rows, right=right, spare=("micro", "tokens/s", "rows"))
    typer.echo()
    if advice.winner is not None:
        command = launch_words(found, advice.winner)
        typer.echo(" ".join(shlex.quote(plain(word)) for word in command))
    render.prose(f"{advice.tried} layouts of an equal global batch in the recipes; times ± 20 %")


def _verdict(found: Estimate, advice: Advice) -> list[str]:
    size = words.count(found.found.work.parameters)
    what = f"{found.name}, {size} parameters on {words.gpus(found)}"
    best = advice.winner
    if best is None:
        return [f"NOTHING FITS: {what}"]
    mesh = words.mesh(dict(best.candidate.plan.mesh))
    return [
        f"best: {best.candidate.recipe} with {mesh}, {words.seconds(best.time.total)} a step",
        what,
    ]


def _row(one: Scored) -> list[str]:
    step, layout = one.candidate.plan.training.step, one.candidate.plan.training.layout
    tokens = step.rows * step.seq_len * step.accumulate * layout.data
    return [
        one.candidate.family,
        words.mesh(dict(one.candidate.plan.mesh)),
        step.recompute,
        str(step.rows),
        str(step.accumulate),
        words.gib(one.memory.device),
        words.seconds(one.time.total),
        f"{tokens / one.time.total:,.0f}",
        one.why,
    ]
