"""`distrun check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from distrun.cli import output_file
from distrun.errors import UsageError

if TYPE_CHECKING:
    from distrun.api.check import CheckReport
    from distrun.spec.job import Settings

_ENDINGS = (".json", ".xml", ".md")
_OF_THE_JOB = (
    *("nodes", "nproc_per_node", "gpus", "hosts", "hostfile", "on", "python", "master_port"),
    *("runs_dir", "strict", "bootstrap"),
)
"""Options that are those of `distrun launch`."""


def check(
    files: list[Path] = typer.Argument(None, metavar="[FILE]...", help="Further files of --from."),
    hosts: str = typer.Option(None, metavar="A,B", help="Look at these machines, over ssh."),
    hostfile: str = typer.Option(None, metavar="FILE", help="Names them, a line each."),
    nodes: str = typer.Option(
        None, metavar="N", help="Nodes of the job; with --on slurm, asked for."
    ),
    on: str = typer.Option(None, metavar="local|ssh|slurm", help="Where [ssh with --hosts]."),
    python: str = typer.Option(
        None, metavar="PATH", help="Interpreter there [as here, else python3]."
    ),
    bootstrap: bool = typer.Option(False, "--bootstrap", help="Send distrun there for this time."),
    nproc_per_node: str = typer.Option(None, metavar="auto|gpu|cpu|N", help="Ranks a node."),
    gpus: str = typer.Option(None, metavar="0,2|free:N", help="GPUs that the job is to use."),
    master_port: str = typer.Option(
        None, metavar="PORT", help="Rendezvous port [29500 between machines]."
    ),
    runs_dir: str = typer.Option(None, metavar="DIR", help="Where runs are recorded [runs]."),
    config: Path = typer.Option(None, metavar="FILE", help="TOML file with [tool.distrun]."),
    ignore: list[str] = typer.Option(None, metavar="ID", help="Leave a rule out; repeatable."),
    strict: bool = typer.Option(False, "--strict", help="Warnings fail too."),
    explain: str = typer.Option(
        None, metavar="ID|all|list", help="Explain a rule, look at nothing."
    ),
    save: Path = typer.Option(None, metavar="FILE", help="Write the snapshots, for --from."),
    recorded: list[Path] = typer.Option(None, "--from", metavar="FILE", help="Judge snapshots."),
    json: bool = typer.Option(False, "--json", help="Print all of it as JSON."),
    output: list[Path] = typer.Option(
        None,
        *("-o", "--output"),
        metavar="FILE",
        help="Write it too: .json, .xml for JUnit, .md as --report; repeatable.",
    ),
    report: bool = typer.Option(False, "--report", help="Print what to paste into an issue."),
    watch: bool = typer.Option(False, "--watch", help="Show the GPUs live, every second."),
    deep: bool = typer.Option(False, "--deep", help="Run matmul, copies, all_reduce, pairs too."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Why, and what was not judged."),
) -> None:
    """Check this machine, or every node, for what breaks, slows or falsifies a job.

    Exit code 1: a check failed; 3: a probe could not finish.
    """
    given = dict(locals())
    _require_one_screen(given)
    settings = _settings(given, config)
    if explain is not None:
        _explain(explain, settings)
        return
    if watch:
        _watch(given, settings)
        return
    output_file.require(output, _ENDINGS)
    if save is not None:
        output_file.require_writable(save)
    _say_what_is_emulated(given, settings)
    found = _checked(given, settings)
    if deep:
        found = _deepened(found, given, settings)
    if save is not None:
        from distrun.cli.check.formats import snapshots

        output_file.write(save, snapshots(found.nodes))
    output_file.write_all(output, _formats(found, given, settings))
    _show(found, given, settings)
    sys.exit(found.exit_code)


def _require_one_screen(given: dict[str, Any]) -> None:
    """Refuse options that ask for different output."""
    shown = [name for name in ("json", "report", "watch", "explain") if given[name]]
    if len(shown) > 1:
        raise UsageError(f"--{shown[0]} and --{shown[1]} exclude each other", "one at a time")
    for screen in {"watch", "explain"} & set(shown):
        for name in ("save", "output", "deep", "strict", "ignore"):
            if given[name]:  # these judge nothing
                raise UsageError(f"--{screen} and --{name} exclude each other", "one at a time")
    files = [*(given["recorded"] or ()), *(given["files"] or ())]
    if given["files"] and not given["recorded"]:
        raise UsageError(f"{str(given['files'][0])!r} is not asked for", "--from FILE judges files")
    for name in ("hosts", "hostfile", "on", "watch", "deep", "save"):
        if files and given[name]:
            raise UsageError(f"--from and --{name} exclude each other", "leave one of them out")


def _settings(given: dict[str, Any], config: Path | None) -> Settings:
    from distrun.cli.screen.console import say
    from distrun.spec import read

    flags = {name: given[name] for name in _OF_THE_JOB if given[name] not in (None, False)}
    return read.settings(flags, config, say)


def _say_what_is_emulated(given: dict[str, Any], settings: Settings) -> None:
    if _emulates(given, settings):
        from distrun.cli.screen.console import say

        nodes = settings.nodes.max
        say(f"{nodes} nodes are emulated on this machine: one snapshot, judged for all their ranks")


def _emulates(given: dict[str, Any], settings: Settings) -> bool:
    from distrun.api.check import emulates

    return not given["recorded"] and emulates(settings)


def _explain(pattern: str, settings: Settings) -> None:
    from distrun.api.explain import explain
    from distrun.cli.check.explain import in_full, one_line_each

    if pattern == "list":
        lines = one_line_each(explain("all", settings))
    else:
        lines = in_full(explain(pattern, settings))
    typer.echo("\n".join(lines))


def _watch(given: dict[str, Any], settings: Settings) -> None:
    from distrun.api.check import opened
    from distrun.cli.check.watch import watch

    with opened(settings) as (_, machines):
        watch(machines)


def _checked(given: dict[str, Any], settings: Settings) -> CheckReport:
    from distrun.api.check import check as look

    return look(
        settings,
        recorded=[*(given["recorded"] or ()), *(given["files"] or ())],
        ignore=given["ignore"] or (),
    )


def _deepened(found: CheckReport, given: dict[str, Any], settings: Settings) -> CheckReport:
    from distrun.api.check import judged
    from distrun.api.deep import with_measured
    from distrun.cli.check.deep import measure

    nodes = with_measured(found.nodes, measure(settings))
    return judged(nodes, settings, given["ignore"] or (), emulated=_emulates(given, settings))


def _formats(found: CheckReport, given: dict[str, Any], settings: Settings) -> output_file.Formats:
    def as_json() -> str:
        from distrun.cli.check.formats import as_json

        return as_json(found)

    def as_junit() -> str:
        from distrun.cli.check.formats import as_junit

        return as_junit(found, strict=given["strict"])

    def as_markdown() -> str:
        from distrun.api.anonymous import anonymous
        from distrun.api.check import judged
        from distrun.cli.check.report import as_markdown

        nodes, here = anonymous(found.nodes), _emulates(given, settings)
        return as_markdown(judged(nodes, settings, given["ignore"] or (), emulated=here))

    return {".json": as_json, ".xml": as_junit, ".md": as_markdown}


def _show(found: CheckReport, given: dict[str, Any], settings: Settings) -> None:
    if given["json"] or given["report"]:
        make = _formats(found, given, settings)[".json" if given["json"] else ".md"]
        typer.echo(make(), nl=False)
    else:
        from distrun.cli.check import view

        view.show(found, verbose=given["verbose"])
