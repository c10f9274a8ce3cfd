"""Tables; rich is imported inside, because only some commands print one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = ()
) -> None:
    """Print a table; into a pipe it is as wide as it needs to be. Columns `right` hold numbers."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=1000)
    lines = list(rows)
    # The first names what other commands are to be given: never cut short.
    width = max((len(row[0]) for row in lines), default=0)
    first = Column(columns[0], min_width=width, no_wrap=True)
    others = [
        Column(name, justify="right" if name in right else "left", no_wrap=name in right)
        for name in columns[1:]
    ]
    drawn = Table(first, *others, box=None, pad_edge=False, header_style="bold")
    for row in lines:
        drawn.add_row(*map(Text, row))  # a file name may look like markup
    console.print(drawn, highlight=False)


def duration(seconds: float) -> str:
    """Return `42 s`, `3:07` or `2:03:07`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
