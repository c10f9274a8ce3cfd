"""`distrun show`."""

from __future__ import annotations

import dataclasses
import json as json_format
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from distrun.cli import output_file

if TYPE_CHECKING:
    from distrun.api.runs import RunRecord

_ATTEMPTS = ("attempt", "began", "time", "nodes", "steps", "lost", "end")
_SENTENCES = ("summary", "versions", "git")


def show(
    run: str = typer.Argument("latest", help="Its name, any part of it, a path, or latest."),
    runs_dir: Path = typer.Option(Path("runs"), help="Where runs are recorded."),
    json: bool = typer.Option(False, "--json", help="Print the record as JSON."),
    output: list[Path] = typer.Option(
        None, "-o", "--output", metavar="FILE", help="Write the record too: .json."
    ),
) -> None:
    """Print what a run was, where it ran, and how it ended."""
    from distrun.api import runs
    from distrun.cli.screen import render
    from distrun.cli.screen.console import plain, say
    from distrun.cli.screen.verdict import verdict_lines

    output_file.require(output, (".json",))
    directory, record = runs.find(runs_dir, run, say)
    record, now = runs.Jobs(say).state_of(directory, record)
    text = json_format.dumps({**dataclasses.asdict(record), "state": now}) + "\n"
    output_file.write_all(output, {".json": lambda: text})
    if json:
        typer.echo(text, nl=False)
        return
    seconds = (record.ended_at or time.time()) - record.started_at
    is_lost = now == "lost"
    state = record.outcome or now
    if record.exit_code is not None:
        state += f" (exit code {record.exit_code})"
    rows = [
        ("run", record.run_id),
        ("state", state),
        ("summary", record.summary),
        ("hint", record.hint),
        ("ranks were", record.where),
        ("command", shlex.join(["distrun", *record.command[1:]]) if record.command else ""),
        ("job", _job(record)),
        (
            "ranks",
            f"{record.nnodes} node{'s' * (record.nnodes != 1)} × {_ranks(record)}"
            f"{_recorded_here(record.plan)}",
        ),
        ("started", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started_at))),
        ("time", "?" if is_lost else render.duration(seconds)),
        ("attempts", f"{record.attempts}{'' if is_lost else _goodput(record)}"),
        ("expected", _expected(record)),
        ("versions", ", ".join(f"{k} {v}" for k, v in record.versions.items())),
        ("git", record.git),
        ("directory", str(directory.path)),
    ]
    for name, value in rows:
        if value:
            line = plain(f"{name:<10} {value}")
            if name in _SENTENCES:
                render.prose(line, indent=11)
            else:  # the user may copy it as it is
                typer.echo(line)
    if record.attempts > 1:
        render.table(_ATTEMPTS, runs.attempt_rows(record), right=("time", "lost"))
    if (verdict := runs.verdict(directory)) is not None:
        try:
            for line in list(verdict_lines(verdict, directory)):
                typer.echo(plain(f"  {line}"))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            say(f"{directory.verdict} is not a verdict: {error!r}")


def _goodput(record: RunRecord) -> str:
    from distrun.api import runs

    share = runs.goodput(record) if record.attempts > 1 else None
    return "" if share is None else f"; {share:.0%} of the time in steps that count"


def _expected(record: RunRecord) -> str:
    """Return what was predicted; the report has it beside what was measured."""
    memory, step_s = map(record.prediction.get, ("peak_memory_nbytes", "step_time_s"))
    parts = [f"{memory / 2**30:.1f} GiB a rank"] if isinstance(memory, (int, float)) else []
    parts += [f"{step_s:.3g} s a step"] if isinstance(step_s, (int, float)) else []
    return f"{', '.join(parts)}; distrun report compares" if parts else ""


def _recorded_here(plan: Mapping[str, Any]) -> str:
    """Return which node is recorded, if each node of the run records itself."""
    own_node = plan.get("own_node")
    return "" if own_node is None else f"; of these, node {own_node} is recorded here"


def _job(record: RunRecord) -> str:
    if record.job.get("on") == "compose":
        return "project {} of Compose, in {}".format(*map(record.job.get, ("project", "engine")))
    if record.job.get("on") == "kubernetes":
        names = ("kind", "name", "namespace", "context")
        return "{} {} of Kubernetes, namespace {} of {}".format(*map(record.job.get, names))
    return f"{record.job_id} of Slurm" if record.job_id else ""


def _ranks(record: RunRecord) -> str:
    return str(record.nproc_per_node or "?")  # of a job that has not started
