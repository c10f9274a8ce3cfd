"""`distrun bench-comm`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from distrun.cli.assignments import assignments
from distrun.cli.bench import plot
from distrun.cli.help_groups import BenchHelp
from distrun.cli.output_file import Formats, require, write_all
from distrun.cli.screen.console import plain
from distrun.errors import UsageError

if TYPE_CHECKING:
    from distrun.api.launch import Prepared
    from distrun.spec.bench import BenchReport, BenchRequest

app = typer.Typer(rich_markup_mode=None, cls=BenchHelp)
_FORMATS = ("table", "nccl-tests", "markdown", "csv")
_ENDINGS = (".json", ".csv", ".md", ".txt", *plot.ENDINGS)
_PLACES = {"out": ("out",), "in": ("in",), "both": ("out", "in")}
_OF_THE_JOB = (
    *("nodes", "nproc_per_node", "gpus", "env", "env_file", "runs_dir", "hosts", "hostfile"),
    *("on", "python", "workdir", "bootstrap", "interface"),
    *("master_port", "time_limit", "grace", "join_timeout", "start_method"),
)
"""Options that are those of `distrun launch`."""


@app.callback(invoke_without_command=True)
def bench_comm(
    context: typer.Context,
    op: str = typer.Option("all_reduce", "--op", "--ops", metavar="A,B|all", help="What to run."),
    begin: str = typer.Option("8", "-b", metavar="SIZE", help="Smallest size: 8, 64K, 1M."),
    end: str = typer.Option("64M", "-e", metavar="SIZE", help="Largest size."),
    factor: float = typer.Option(2.0, "-f", metavar="X", help="From one size to the next."),
    sizes: str = typer.Option(None, metavar="A,B", help="These sizes instead."),
    iterations: int = typer.Option(20, "-n", help="Iterations of a row; p99 from 100."),
    warmup: int = typer.Option(5, "-w", help="Iterations before, untimed."),
    dtype: str = typer.Option("float32", help="float32, bfloat16, float16, float64, int32, …"),
    redop: str = typer.Option("sum", help="sum, mean, prod, max or min."),
    root: int = typer.Option(0, help="Of broadcast, reduce, gather and scatter."),
    place: str = typer.Option("both", metavar="out|in|both", help="Where the result goes."),
    mode: str = typer.Option("latency", metavar="latency|throughput", help="How it is timed."),
    check: bool = typer.Option(True, help="Compare results with what is known to be right."),
    overlap: str = typer.Option(None, metavar="matmul", help="Measure beside a matmul too."),
    budget: float = typer.Option(30.0, metavar="S", help="Cut iterations to take about as long."),
    backend: str = typer.Option(None, metavar="gloo|nccl", help="[nccl with GPUs, else gloo]"),
    timeout: float = typer.Option(60.0, metavar="S", help="Of one collective."),
    json: bool = typer.Option(False, "--json", help="Print the whole report as JSON."),
    form: str = typer.Option(
        "table", "--format", metavar="|".join(_FORMATS), help="Print it in another form."
    ),
    output: list[Path] = typer.Option(
        None,
        *("-o", "--output"),
        metavar="FILE",
        help="Write it too: .json, .csv, .md, .txt as nccl-tests, or a plot: .svg, .png, .pdf;"
        " repeatable.",
    ),
    baseline: Path = typer.Option(None, metavar="FILE", help="Compare with this report."),
    tolerance: float = typer.Option(0.1, metavar="X", help="With --baseline: 0.1 is 10 %."),
    nodes: str = typer.Option(None, metavar="N", help="As for launch, from here on."),
    nproc_per_node: str = typer.Option(None, metavar="auto|gpu|cpu|N"),
    gpus: str = typer.Option(None, metavar="0,2|free:N"),
    env: list[str] = typer.Option(None, metavar="K=V"),
    env_file: str = typer.Option(None, metavar="FILE"),
    config: Path = typer.Option(None, metavar="FILE"),
    runs_dir: str = typer.Option(None, metavar="DIR"),
    hosts: str = typer.Option(None, metavar="A,B"),
    hostfile: str = typer.Option(None, metavar="FILE"),
    on: str = typer.Option(None, metavar="local|ssh|slurm"),
    python: str = typer.Option(None, metavar="PATH"),
    workdir: str = typer.Option(None, metavar="DIR"),
    bootstrap: bool = typer.Option(None, "--bootstrap"),
    interface: str = typer.Option(None, metavar="NAME"),
    master_port: str = typer.Option(None, metavar="PORT"),
    time_limit: str = typer.Option(None, metavar="TIME"),
    grace: str = typer.Option(None, metavar="TIME"),
    join_timeout: str = typer.Option(None, metavar="TIME"),
    start_method: str = typer.Option(None, metavar="forkserver|spawn"),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the torchrun lines, run nothing."),
) -> None:
    """Measure the collectives of torch between the ranks of a job.

    Exit code 1: a result was wrong, or a row regressed against --baseline.
    """
    if context.invoked_subcommand is not None:
        return
    given = dict(locals())
    form = _form(form, as_json=json)
    _require_outputs(output)
    before = _baseline(baseline, tolerance)
    request = _request(given)
    settings = {name: given[name] for name in _OF_THE_JOB}
    prepared = _prepared(request, settings, config, ask=not dry_run)
    if dry_run:
        from distrun.plan.show import dry_run as lines

        typer.echo("\n".join(lines(prepared.plan)))
        return
    if before is not None:
        from distrun.api.bench_comm import require_comparable

        require_comparable(before, prepared, request)
    report, exit_code = _measured(request, prepared)
    _show(report, form)
    write_all(output, _formats(report, before))
    if any(row.wrong_count for row in report.rows):
        exit_code = exit_code or 1
    if before is not None and _regressed(before, report, tolerance, err=form != "table"):
        exit_code = exit_code or 1
    sys.exit(exit_code)


@app.command("compare")
def compare(
    before: Path = typer.Argument(..., metavar="A.json", help="The report to compare with."),
    after: Path = typer.Argument(..., metavar="B.json", help="The newer report."),
    tolerance: float = typer.Option(0.1, metavar="X", help="0.1 is 10 %."),
    json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Print what changed between two reports. Exit code 1: something became slower."""
    from distrun.spec.bench import read_report

    _require_tolerance(tolerance)
    slower = _regressed(read_report(before), read_report(after), tolerance, as_json=json)
    sys.exit(int(slower))


def _baseline(path: Path | None, tolerance: float) -> BenchReport | None:
    from distrun.spec.bench import read_report

    _require_tolerance(tolerance)
    return None if path is None else read_report(path)


def _require_tolerance(tolerance: float) -> None:
    if not 0 <= tolerance < 100:
        raise UsageError(f"--tolerance {tolerance:g} is not from 0 to 100", "0.1 is 10 %")


def _request(given: dict[str, Any]) -> BenchRequest:
    from distrun.spec.bench import ops_of, request_of, sizes_of

    if given["place"] not in _PLACES:
        message = f"--place {given['place']!r} is not one of {', '.join(_PLACES)}"
        raise UsageError(message, "for example --place both")
    return request_of(
        ops=ops_of(given["op"]),
        sizes=sizes_of(given["begin"], given["end"], given["factor"], given["sizes"]),
        places=_PLACES[given["place"]],
        budget_s=given["budget"],
        timeout_s=given["timeout"],
        **{n: given[n] for n in ("dtype", "redop", "root", "mode", "check", "backend", "overlap")},
        **{n: given[n] for n in ("iterations", "warmup")},
    )


def _prepared(
    request: BenchRequest, settings: dict[str, Any], config: Path | None, *, ask: bool
) -> Prepared:
    from distrun.api.bench_comm import prepare_bench, program_of
    from distrun.cli.screen.console import say
    from distrun.spec import read

    flags = {name: value for name, value in settings.items() if value not in (None, [])}
    if "env" in flags:
        flags["env"] = assignments(flags["env"])
    job, sources, _ = read.job({**flags, **program_of(request)}, config, say)
    return prepare_bench(job, sources, request, ask=ask, tell=say)


def _measured(request: BenchRequest, prepared: Prepared) -> tuple[BenchReport, int]:
    """Run the job; return its report, which may be partial, and its exit code."""
    from distrun.api.bench_comm import Collected
    from distrun.cli.bench.view import Progress
    from distrun.cli.run_to_end import run_to_end
    from distrun.cli.screen.collecting import CollectingView
    from distrun.cli.screen.console import Console

    collected = Collected(request)
    progress = Progress(collected)
    result = run_to_end(
        prepared,
        lambda run: CollectingView(run, Console(), collected.take, progress),
        quiet=False,
    )
    if not collected.begin:
        sys.exit(result.exit_code or 1)  # its end has been printed
    report = collected.report()
    try:  # the run keeps the models, for later predictions
        (result.run_dir / "bench.json").write_text(_text(report, "json"), encoding="utf-8")
    except OSError:
        pass  # a full disk: an error of a file that -o names is reported separately
    return report, result.exit_code


def _form(form: str, *, as_json: bool) -> str:
    if form not in _FORMATS:
        hint = "--json" if form == "json" else "for example --format csv"
        raise UsageError(f"--format {form!r} is not one of {', '.join(_FORMATS)}", hint)
    if as_json and form != "table":
        raise UsageError(f"--json and --format {form} exclude each other", "one at a time")
    return "json" if as_json else form


def _require_outputs(paths: list[Path] | None) -> None:
    """Refuse files that cannot be written or drawn, before anything is measured."""
    require(paths, _ENDINGS)
    if any(path.suffix.lower() in plot.ENDINGS for path in paths or ()):
        plot.require()


def _formats(report: BenchReport, before: BenchReport | None) -> Formats:
    names = {".json": "json", ".csv": "csv", ".md": "markdown", ".txt": "nccl-tests"}
    texts = {ending: partial(_text, report, name) for ending, name in names.items()}
    return texts | {e: partial(plot.draw, report, before, e) for e in plot.ENDINGS}


def _text(report: BenchReport, form: str) -> str:
    from distrun.cli.bench import formats

    if form == "json":
        return report.model_dump_json(indent=1, by_alias=True) + "\n"
    if form == "csv":
        return formats.as_csv(report)
    if form == "markdown":
        return formats.as_markdown(report)
    return formats.as_nccl_tests(report)


def _show(report: BenchReport, form: str) -> None:
    from distrun.cli.bench import pairs, table
    from distrun.cli.screen import render

    if form != "table":
        sys.stdout.write(_text(report, form))
        return
    for line in table.heading(report):
        render.prose(plain(line))
    typer.echo()
    if report.rows:
        names = table.columns_of(report)
        words = {"op", "place", ""}
        cells = table.cells(report)
        render.table(names, cells, right=set(names) - words, spare=table.SPARE)
        typer.echo()
    if report.pairs is not None:
        ends, links = pairs.matrix(report)
        render.prose(plain(pairs.heading(report.pairs)))
        render.table(ends, links, right=ends[1:])
        typer.echo()
    for line in [*table.remarks(report), *pairs.remarks(report)]:
        render.prose(plain(line))


def _regressed(
    before: BenchReport,
    after: BenchReport,
    tolerance: float,
    *,
    err: bool = False,
    as_json: bool = False,
) -> bool:
    """Print what changed, on stderr if `err`; return whether something became slower."""
    from distrun.api.bench_comm import compare as compare_reports
    from distrun.cli.bench import formats, table

    changes = compare_reports(before, after, tolerance)
    lines = [formats.changes(changes)] if as_json else table.change_lines(changes)
    for line in lines:
        typer.echo(line if as_json else plain(line), err=err)
    return any(change.regressed for change in changes)
