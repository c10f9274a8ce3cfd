"""The table of a mismatch: the call of each rank and its line of code."""

from __future__ import annotations

from collections.abc import Sequence

from distrun.comm.checked.board import Entry, State
from distrun.comm.checked.record import decode

_NOT_CALLED = {
    State.LATE: "has not called",
    State.LEFT: "has left",
    State.GAVE_UP: "gave up waiting",
}

_ODD = {State.LEFT: 0, State.LATE: 1}


def table(entries: Sequence[Entry]) -> str:
    """Return one line for each group of ranks that did the same, the exceptions first.

    Ranks that will never call come first, then those that have not called, then small groups.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for rank, entry in enumerate(entries):
        groups.setdefault(_row(entry), []).append(rank)
    order = sorted(
        groups.items(),
        key=lambda item: (_ODD.get(entries[item[1][0]].state, 2), len(item[1])),
    )
    rows = [(ranks_text(ranks), *row) for row, ranks in order]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=True)) for r in rows]
    return "\n".join("  " + line.rstrip() for line in lines)


def _row(entry: Entry) -> tuple[str, ...]:
    """Return the columns of a line: call, details, dtype, shape, line of code."""
    if entry.record and entry.state is State.CALLED:
        record = decode(entry.record)
        return record.call, record.details, record.dtype, record.shape, f"at {record.place}"
    where = f"it is at {entry.place}" if entry.state is State.LATE else entry.place
    return _NOT_CALLED[entry.state], "", "", "", where if entry.place else ""


def ranks_text(ranks: Sequence[int]) -> str:
    """Return "rank 2" or "ranks 0-2, 5"."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    spans = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return f"rank{'s' if len(ranks) > 1 else ''} {spans}"
