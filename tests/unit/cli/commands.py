"""The command line in this process: what it is made of, and what it prints."""

from __future__ import annotations

from typing import Any

import pytest
import typer


def command_of(app: typer.Typer, *names: str) -> Any:
    """Return a command by its names, as Typer hands it to click."""
    command: Any = typer.main.get_command(app)
    for name in names:
        command = command.commands[name]
    return command


def printed(app: typer.Typer, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a command prints on stdout until its end."""
    capsys.readouterr()
    try:
        command_of(app).main(words, prog_name="distrun", standalone_mode=False)
    except SystemExit:
        pass
    return capsys.readouterr().out
