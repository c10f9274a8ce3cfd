"""The man page distrun(1), of the help of all commands: `python -m distrun.cli.man`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from distrun import __version__
from distrun.cli.help_groups import BENCH, CHECK, LAUNCH
from distrun.errors import ExitCode

_EXIT_CODES = {
    ExitCode.OK: "every rank ended with 0",
    ExitCode.USAGE: "the command line or a file is wrong; nothing was started",
    ExitCode.MACHINE: "the machine lacks something, or the check failed",
    ExitCode.JOIN_TIMEOUT: "not all nodes joined in time",
    ExitCode.NODE_LOST: "an agent or a node was lost",
    ExitCode.INTERNAL: "a fault of distrun itself",
    ExitCode.TIME_LIMIT: "the ranks hung, or the time limit",
    ExitCode.HUNG_UP: "hung up",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.TERMINATED: "terminated",
}


_GROUPS = {"launch": LAUNCH, "check": CHECK, "bench-comm": BENCH}
_WIDTH = 70


def page() -> str:
    """Return the page in the macros of man(7)."""
    import typer

    from distrun.cli.app import app

    root: Any = typer.main.get_command(app)
    return "\n".join((*_head(root), *_command(root, ()), *_exit_codes())) + "\n"


def _head(root: Any) -> Iterator[str]:
    purpose = root.help.strip().rstrip(".")
    yield f'.TH DISTRUN 1 "" "distrun {__version__}" "User Commands"'
    yield from (".SH NAME", rf"distrun \- {purpose[0].lower()}{purpose[1:]}", ".SH SYNOPSIS")
    yield from _bold("distrun", "COMMAND [OPTIONS] [ARGS]...")


def _command(command: Any, names: tuple[str, ...]) -> Iterator[str]:
    """Yield the section of a command, and those of the commands below it."""
    context = command.make_context(" ".join(("distrun", *names)), [], resilient_parsing=True)
    if names:
        yield f".SH {_text(' '.join(names).upper())}"
        usage = " ".join(command.collect_usage_pieces(context))
        yield from _bold(" ".join(("distrun", *names)), usage)
        for paragraph in filter(None, (command.help or "").split("\n\n")):
            yield from (".PP", *_lines(paragraph))
    else:
        yield ".SH OPTIONS"
    records = {param.name: param.get_help_record(context) for param in command.get_params(context)}
    for heading, own in _GROUPS.get(" ".join(names), {}).items():
        yield f".SS {_text(heading)}"
        for name in own:
            yield from _option(records.pop(name, None))
    for record in records.values():
        yield from _option(record)
    for name, below in getattr(command, "commands", {}).items():
        yield from _command(below, (*names, name))


def _option(record: tuple[str, str] | None) -> Iterator[str]:
    if record is not None:  # not of a hidden one
        yield from (".TP", rf"\fB{_text(record[0])}\fR", *_lines(record[1] or "The same."))


def _exit_codes() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    yield "Of launch; any other is that of the rank that failed first."
    for code, words in _EXIT_CODES.items():
        yield from (".TP", rf"\fB{int(code)}\fR", *_lines(words))


def _bold(words: str, more: str) -> Iterator[str]:
    yield rf"\fB{_text(words)}\fR {_text(more)}"


def _lines(words: str) -> Iterator[str]:
    yield from map(_text, textwrap.wrap(" ".join(words.split()), _WIDTH))


def _text(words: str) -> str:
    """Return words that roff prints as they are: no dot or quote at the start is a request."""
    escaped = words
    for char, name in {"\\": "rs", "'": "aq", '"': "dq", "`": "ga", "^": "ha", "~": "ti"}.items():
        escaped = escaped.replace(char, f"\\({name}")
    escaped = escaped.replace("-", "\\-").replace("…", "...")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


if __name__ == "__main__":
    sys.stdout.write(page())
