"""Tables, sentences and source; rich is imported in the functions: few commands need it."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from distrun.cli.screen import width as cells
from distrun.cli.screen.console import plain

if TYPE_CHECKING:
    from rich.console import Console


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    twice: Sequence[str] = (),
    spare: Sequence[str] = (),
    names: Sequence[str] = (),
) -> None:
    """Print a table; in a pipe it is as wide as needed.

    Args:
        columns: The heads.
        rows: The cells.
        right: Right-aligned columns, for numbers.
        twice: Columns to leave out on a narrow terminal, in this order: another one has it too.
        spare: Columns to leave out then, in this order; a line names them.
        names: Columns whose cells are shortened in the middle if that is not enough.
    """
    from rich.table import Column, Table
    from rich.text import Text

    console = _console()
    lines = [[plain(cell) for cell in row] for row in rows]
    every = columns
    columns, lines = _fitting(every, lines, (*twice, *spare), names, console.width)
    # The first column has names to type in other commands: never shortened.
    width = max((cells.width(row[0]) for row in lines), default=0)
    first = Column(columns[0], min_width=width, no_wrap=True)
    others = [
        Column(name, justify="right" if name in right else "left", no_wrap=name in right)
        for name in columns[1:]
    ]
    drawn = Table(first, *others, box=None, pad_edge=False, header_style="bold")
    for row in lines:
        drawn.add_row(*map(Text, row))  # a name may look like markup
    with console.capture() as captured:
        console.print(drawn, highlight=False)
    for line in captured.get().splitlines():
        console.out(line.rstrip(), highlight=False)
    if left_out := [name for name in every if name in {*spare} - {*columns}]:
        prose(f"not shown at {console.width} columns: {', '.join(left_out)}")


def hanging(rows: Iterable[tuple[str, str, Sequence[str]]]) -> None:
    """Print labelled lines; on a terminal a long one continues below its own start.

    Args:
        rows: The label, its style, and its lines.
    """
    from rich.table import Column, Table
    from rich.text import Text

    console = _console()
    drawn = Table(Column(no_wrap=True), Column(), box=None, pad_edge=False, show_header=False)
    lines = [
        ("" if number else plain(label), style, plain(line))
        for label, style, several in rows
        for number, line in enumerate(several)
    ]
    width = max((len(label) for label, *_ in lines), default=0)
    for label, style, line in lines:
        if console.is_terminal:
            drawn.add_row(Text(label, style), Text(line))
        else:  # without padding to the longest line
            console.print(Text(f"{label:<{width}}  {line}"), highlight=False, soft_wrap=True)
    if drawn.row_count:
        console.print(drawn, highlight=False)


def prose(line: str, *, indent: int = 2) -> None:
    """Print a line; on a terminal it is wrapped between words, with an indent."""
    columns = terminal_columns()
    if columns and cells.width(line) > columns:
        line = textwrap.fill(
            line,
            columns,
            subsequent_indent=" " * indent,
            replace_whitespace=False,
            break_on_hyphens=False,
        )
    sys.stdout.write(line + "\n")


def terminal_columns() -> int | None:
    """Return the width of the terminal on stdout; None if stdout is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def source(text: str, language: str) -> None:
    """Print a text as it is; on a terminal with syntax colours."""
    from rich.console import Console
    from rich.syntax import Syntax

    console = Console()
    if console.is_terminal:
        lines = Syntax("", language, theme="ansi_dark", background_color="default").highlight(text)
        console.print(lines, soft_wrap=True, end="")
    else:
        sys.stdout.write(text)


def _console() -> Console:
    """Return the console for tables; in a pipe it has no limit of width."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=1000)


def _fitting(
    columns: Sequence[str],
    rows: list[list[str]],
    spare: Sequence[str],
    names: Sequence[str],
    limit: int,
) -> tuple[list[str], list[list[str]]]:
    """Leave out spare columns, then shorten names, until the table fits the terminal."""
    kept = list(range(len(columns)))
    widths = [max(map(cells.width, column)) + 2 for column in zip(columns, *rows, strict=True)]
    for name in spare:
        if sum(widths[i] for i in kept) - 2 <= limit:
            break
        kept = [i for i in kept if columns[i] != name]
    table = [[row[i] for i in kept] for row in (columns, *rows)]
    over = sum(widths[i] for i in kept) - 2 - limit
    if over > 0 and names:
        which = [number for number, i in enumerate(kept) if columns[i] in names]
        table = cells.shortened(table, which, over)
    return table[0], table[1:]


def duration(seconds: float) -> str:
    """Return `42 s`, `3:07` or `2:03:07`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
