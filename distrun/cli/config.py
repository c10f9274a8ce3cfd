"""`distrun config`."""

from __future__ import annotations

import json

import typer

from distrun.cli.commands import Commands

app = typer.Typer(help="The options of a config file.", no_args_is_help=True, cls=Commands)


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of `[tool.distrun]`."""
    from distrun.spec.schema import config_schema

    typer.echo(json.dumps(config_schema(), indent=2))


@app.callback()
def _group() -> None:
    """Keep `schema` a subcommand although it is the only one."""
