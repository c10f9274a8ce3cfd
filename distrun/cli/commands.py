"""Groups of commands: their list, and the error for an unknown command."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from distrun.errors import UsageError


class Commands(TyperGroup):
    """A group of commands; the hint for a misspelt one is the corrected command line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands; click's own cuts the sentences at the width."""
        width = 1000
        rows = [(name, one.get_short_help_str(width)) for name, one in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first argument names.

        Raises:
            UsageError: There is no such command.
        """
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise self.unknown(ctx, args)
        return super().resolve_command(ctx, args)

    def unknown(self, ctx: Any, args: list[str]) -> UsageError:
        """Return the error for an unknown command, with the line that was meant."""
        message = f"there is no command {args[0]!r}"
        near = difflib.get_close_matches(args[0], self.commands, n=1, cutoff=0.6)
        if near:
            mended = _line(*_groups(ctx), near[0], *args[1:])
            return UsageError(f"{message}; did you mean {near[0]!r}?", mended)
        return UsageError(message, "one of: " + ", ".join(self.commands))


class Root(Commands):
    """`distrun` itself: it recognises a script, or an option of launch, in place of a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the options before the command.

        Raises:
            UsageError: It is an option of `launch`.
        """
        if ctx.resilient_parsing:  # shell completion
            return super().parse_args(ctx, args)
        own = {name for param in self.get_params(ctx) for name in param.opts}
        of_launch = {name for param in self.commands["launch"].params for name in param.opts}
        for word in args:
            name = word.partition("=")[0].replace("_", "-")
            if not word.startswith("-") or word == "--":
                break
            if name not in own and name in of_launch:
                raise UsageError(f"{name} is an option of launch", _line("launch", *args))
        return super().parse_args(ctx, args)

    def unknown(self, ctx: Any, args: list[str]) -> UsageError:
        """For a script, suggest `launch`."""
        if args[0].endswith(".py") or Path(args[0]).is_file():
            return UsageError(
                f"{args[0]!r} is a script; launch runs scripts", _line("launch", *args)
            )
        return super().unknown(ctx, args)


def _line(*words: str) -> str:
    return shlex.join(["distrun", *words])


def _groups(ctx: Any) -> Iterator[str]:
    """Yield the names of the groups above this one, without `distrun`."""
    if ctx.parent is not None:
        yield from _groups(ctx.parent)
        yield ctx.info_name
