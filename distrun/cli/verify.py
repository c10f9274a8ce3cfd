"""`distrun verify`."""

from __future__ import annotations

import contextlib
import json as json_format
import math
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from distrun.cli import output_file
from distrun.errors import UsageError

if TYPE_CHECKING:
    from distrun.api.launch import Prepared
    from distrun.api.verify import Comparison, Curve, Group, Trial

_STOPPED = ("interrupted", "terminated", "hung up")
_COLUMNS = (
    *("layout", "script", "ranks", "loss", "first", "last", "max |difference|", "at step"),
    "verdict",
)


@dataclass(frozen=True)
class _Row:
    """One training run."""

    trial: Trial
    reference: Trial
    run_dir: Path
    curve: Curve | None = None
    """None if it failed."""
    comparison: Comparison | None = None
    """None for the reference, or if there is nothing to compare."""

    @property
    def good(self) -> bool:
        """Return whether it ran, and equals the reference."""
        return self.curve is not None and (self.comparison is None or self.comparison.equal)


def verify(
    recipes: list[str] = typer.Argument(
        ..., metavar="RECIPE...", help="Names of recipes, or scripts of your own."
    ),
    strategy: str = typer.Option(
        None, metavar="NAMES|all", help="Layouts; all: of the scripts beside it too [its own]."
    ),
    steps: int = typer.Option(20, min=1, max=100_000, help="Steps of training."),
    precision: str = typer.Option("float32", metavar="float32|float64"),
    tolerance: float = typer.Option(None, metavar="X", help="Of a loss [1e-5, in float64 1e-12]."),
    json: bool = typer.Option(False, "--json", help="Print all losses as JSON."),
    output: list[Path] = typer.Option(
        None,
        *("-o", "--output"),
        metavar="FILE",
        help="Write it too: .json and .csv with all losses, .md the table; repeatable.",
    ),
    runs_dir: Path = typer.Option(None, metavar="DIR", help="Where to record the runs, and keep."),
    keep_runs: bool = typer.Option(False, "--keep-runs", help="Keep them anyway."),
    config: Path = typer.Option(None, metavar="FILE", help="TOML file with [tool.distrun]."),
    hosts: str = typer.Option(None, metavar="A,B", help="Run the ranks on these machines."),
    hostfile: str = typer.Option(None, metavar="FILE", help="A host a line."),
    python: str = typer.Option(None, metavar="PATH", help="Python there [as here, or python3]."),
    interface: str = typer.Option(None, metavar="NAME", help="Network of the nodes [the route]."),
) -> None:
    """Compare the losses of layouts with those of one rank, step by step.

    The layouts are in a script's header, as [tool.distrun.verify.layouts]. Exit code 1: a loss
    is off, or a run failed.
    """
    from distrun.api.verify import LIMITS, groups_of

    if precision not in LIMITS:
        raise UsageError(f"--precision {precision!r} is not one of " + ", ".join(LIMITS))
    limit = LIMITS[precision] if tolerance is None else tolerance
    if not 0 <= limit < math.inf:
        raise UsageError(f"--tolerance {limit:g} is not a finite number >= 0", "for example 1e-5")
    output_file.require(output, (".json", ".csv", ".md"))
    groups = groups_of(recipes, strategy)
    there = {"hosts": hosts, "hostfile": hostfile, "python": python, "interface": interface}
    where = {name: value for name, value in there.items() if value is not None}
    directory = runs_dir or Path(tempfile.mkdtemp(prefix="distrun-verify-"))
    keep = keep_runs or runs_dir is not None
    try:
        prepared = _prepared(groups, steps, precision, directory, config, where)
        rows = _rows(groups, prepared, limit)
        keep = keep or not all(row.good for row in rows)
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
    about = {"steps": steps, "precision": precision, "tolerance": limit}
    output_file.write_all(output, _formats(rows, about))
    _show(rows, about, directory if keep else None, as_json=json)
    sys.exit(not all(row.good for row in rows))


def _prepared(
    groups: list[Group],
    steps: int,
    precision: str,
    runs_dir: Path,
    config: Path | None,
    where: dict[str, str],
) -> dict[Trial, Prepared]:
    """Plan all runs before the first one starts, so that errors come at once."""
    from distrun.api.verify import prepare_trial
    from distrun.cli.screen.console import say

    trials = [trial for group in groups for trial in (group.reference, *group.layouts)]
    told: list[str] = []
    prepared = {
        trial: prepare_trial(
            trial,
            steps=steps,
            precision=precision,
            runs_dir=runs_dir,
            config=config,
            where=where,
            tell=told.append,
        )
        for trial in trials
    }
    for line in dict.fromkeys(told):  # once for all of them
        say(line)
    return prepared


def _rows(groups: list[Group], prepared: dict[Trial, Prepared], tolerance: float) -> list[_Row]:
    from distrun.api.verify import compare

    rows: list[_Row] = []
    for group in groups:
        reference = group.reference
        run_dir, expected = _trained(reference, prepared, len(rows))
        rows.append(_Row(reference, reference, run_dir, expected))
        for layout in group.layouts if expected else ():
            run_dir, curve = _trained(layout, prepared, len(rows))
            comparison = compare(expected, curve, tolerance) if expected and curve else None
            rows.append(_Row(layout, reference, run_dir, curve, comparison))
    return rows


def _trained(
    trial: Trial, prepared: dict[Trial, Prepared], before: int
) -> tuple[Path, Curve | None]:
    """Run a training to its end; return its directory, and its curve unless it failed."""
    from distrun.api.verify import curve_of
    from distrun.cli.run_to_end import run_to_end
    from distrun.cli.screen.console import Console, say
    from distrun.cli.screen.show_run import RunView

    ranks = f"{trial.ranks} rank" + "s" * (trial.ranks > 1)
    say(f"{before + 1} of {len(prepared)}: {trial.name}, {trial.script.name} on {ranks}")
    with _handlers_kept():
        result = run_to_end(
            prepared[trial], lambda run: RunView(run, Console(), quiet=True), quiet=True
        )
    if result.outcome in _STOPPED:
        sys.exit(result.exit_code)
    if result.exit_code == 2:
        say("verify passes --steps, --precision, --no-save, --resume, --eval-every,")
        say("--deterministic and --log-every to the script, which has to accept them", bare=True)
    if result.exit_code:
        return result.run_dir, None
    return result.run_dir, curve_of(trial, result.run_dir)


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Restore the signal handlers, so that Ctrl-C ends this process between two runs too."""
    from distrun.signals import FORWARDED, STOPPING

    before = {number: signal.getsignal(number) for number in (*STOPPING, *FORWARDED)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _formats(rows: list[_Row], about: dict[str, Any]) -> output_file.Formats:
    from distrun.cli.screen.table_text import as_csv, as_markdown

    losses = [
        (row.trial.name, row.trial.script.name, row.trial.ranks, step, loss)
        for row in rows
        for step, loss in (row.curve.losses.items() if row.curve else ())
    ]
    return {
        ".json": lambda: _json(rows, about),
        ".csv": lambda: as_csv(("layout", "script", "ranks", "step", "loss"), losses),
        ".md": lambda: as_markdown(_COLUMNS, map(_cells, rows)),
    }


def _json(rows: list[_Row], about: dict[str, Any]) -> str:
    whole = {**about, "equal": all(row.good for row in rows), "rows": list(map(_plain, rows))}
    return json_format.dumps(whole) + "\n"


def _show(rows: list[_Row], about: dict[str, Any], kept_in: Path | None, *, as_json: bool) -> None:
    from distrun.cli.screen import render
    from distrun.cli.screen.console import say

    if as_json:
        typer.echo(_json(rows, about), nl=False)
    else:
        right = ("ranks", "first", "last", "max |difference|", "at step")
        render.table(_COLUMNS, map(_cells, rows), right=right, spare=("script", "loss", "first"))
    for row in rows:
        if not row.good:
            say(f"{row.trial.name}: see {row.run_dir}")
    if kept_in is not None:
        say(f"the runs are kept in {kept_in}")


def _cells(row: _Row) -> list[str]:
    trial, curve, comparison = row.trial, row.curve, row.comparison
    start = [trial.name, trial.script.name, str(trial.ranks)]
    if curve is None:
        return [*start, "", "", "", "", "", "FAILED"]
    from distrun.cli.screen.bars import bars

    losses = list(curve.losses.values())
    start += [bars(losses), f"{losses[0]:.7f}", f"{losses[-1]:.7f}"]
    if comparison is None:
        return [*start, "", "", "the reference"]
    return [*start, f"{comparison.difference:.1e}", str(comparison.at_step), _words(comparison)]


def _words(comparison: Comparison) -> str:
    if not comparison.loss_is_equal:
        return f"OFF by more than {comparison.tolerance:g}"
    if not comparison.norm_is_equal:
        return f"OFF: the first gradient's norm by {comparison.norm_difference:.1e} of itself"
    if not comparison.validation_is_equal:
        return f"OFF: the validation loss by {comparison.validation_difference:.1e}"
    if comparison.seen is not None:
        here, there = comparison.seen[1], comparison.seen[0]
        return f"OFF: {here:g} samples or tokens a step, {there:g} in the reference"
    return "equal"


def _plain(row: _Row) -> dict[str, Any]:
    """Return a row for JSON, which has no NaN: it is written as a string."""

    def number(value: float | None) -> float | str | None:
        return value if value is None or math.isfinite(value) else str(value)

    curve, comparison = row.curve, row.comparison
    return {
        "layout": row.trial.name,
        "script": str(row.trial.script),
        "args": row.trial.args,
        "ranks": row.trial.ranks,
        "reference": row.reference.name,
        "steps": list(curve.losses) if curve else [],
        "losses": [number(loss) for loss in curve.losses.values()] if curve else [],
        "max_difference": number(comparison.difference) if comparison else None,
        "at_step": comparison.at_step if comparison else None,
        "norm_difference": number(comparison.norm_difference) if comparison else None,
        "validation_difference": number(comparison.validation_difference) if comparison else None,
        "seen": list(comparison.seen) if comparison and comparison.seen else None,
        "equal": row.good,
        "run_dir": str(row.run_dir),
    }
