"""The app, and the one place where an error becomes an exit code."""

from __future__ import annotations

import os
import sys

import typer

from distrun.cli import config, launch, logs, ps, show, stop
from distrun.cli.console import report_error
from distrun.errors import DistrunError, ExitCode

app = typer.Typer(
    name="distrun",
    help="Take PyTorch training from a laptop to a cluster.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich costs 50 ms on every command
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("launch", context_settings={"allow_interspersed_args": False}, no_args_is_help=True)(
    launch.launch
)
app.command("ps")(ps.ps)
app.command("logs")(logs.logs)
app.command("stop")(stop.stop)
app.command("show")(show.show)
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


def main() -> None:
    """Run the command line."""
    try:
        app()
    except DistrunError as error:
        report_error(error.message, error.hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:  # the last resort: whatever is left is our own fault
        if os.environ.get("DISTRUN_DEBUG"):
            raise
        report_error(
            f"a fault of distrun itself: {type(error).__name__}: {error}",
            "`distrun --debug …` shows where; please report it",
        )
        sys.exit(ExitCode.INTERNAL)
