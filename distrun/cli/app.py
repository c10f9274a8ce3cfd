"""The app: which commands there are."""

from __future__ import annotations

import os

import typer

from distrun.cli import (
    config,
    diagnose,
    export,
    launch,
    logs,
    ps,
    recipes,
    report,
    save,
    show,
    simulate,
    stacks,
    stop,
    verify,
)
from distrun.cli.bench import command as bench_comm
from distrun.cli.check import command as check
from distrun.cli.commands import Root
from distrun.cli.estimate import command as estimate
from distrun.cli.help_groups import CheckHelp
from distrun.cli.launch_command import LaunchCommand

app = typer.Typer(
    name="distrun",
    cls=Root,
    help="Take PyTorch training from a laptop to a cluster.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich costs 50 ms on every command
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(
    "launch",
    cls=LaunchCommand,
    context_settings={"allow_interspersed_args": False},
    no_args_is_help=True,
)(launch.launch)
app.command("ps")(ps.ps)
app.command("logs")(logs.logs)
app.command("stop")(stop.stop)
app.command("save")(save.save)
app.command("simulate")(simulate.simulate)
app.command("stacks")(stacks.stacks)
app.command("diagnose")(diagnose.diagnose)
app.command("show")(show.show)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("check", cls=CheckHelp)(check.check)
app.command("verify")(verify.verify)
app.command(
    "estimate",
    context_settings={"ignore_unknown_options": True},
    no_args_is_help=True,
)(estimate.estimate)
app.add_typer(bench_comm.app, name="bench-comm")
app.add_typer(recipes.app, name="recipes")
app.add_typer(config.app, name="config")


@app.callback(invoke_without_command=True)
def _root(
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks of distrun itself."),
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if debug:
        os.environ["DISTRUN_DEBUG"] = "1"
    if version:
        from distrun import __version__

        typer.echo(f"distrun {__version__}")
        raise typer.Exit
