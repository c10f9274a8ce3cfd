"""The table of docs/faults.md, from the rows of a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.faults.cases import ENDS, HANGS, NETWORK, OURS, OUTPUT, SIGNALS, START, Case
from tests.faults.results import Results, Row
from tests.faults.running import ONE, SSH, TWO

GROUPS: tuple[tuple[str, list[Case]], ...] = (
    ("A rank ends", ENDS),
    ("A rank does not come, or calls something else", HANGS),
    ("Output", OUTPUT),
    ("A signal", SIGNALS),
    ("A process of the launcher", OURS),
    ("The network", NETWORK),
    ("The start", START),
)
COLUMNS = (
    *((layout.id, "distrun") for layout in (ONE, TWO, SSH)),
    *((layout.id, "torchrun") for layout in (ONE, TWO)),
)
_HEAD = (
    "fault",
    "distrun 1x4",
    "distrun 2x2",
    "distrun over ssh",
    "torchrun 1x4",
    "torchrun 2x2",
)


def table(results: Results) -> str:
    """Return one table a group of faults, and a table of what holds of all of them."""
    parts = []
    for title, cases in GROUPS:
        lines = [f"## {title}", "", _row(_HEAD), _row(["---"] * len(_HEAD))]
        lines += [_row([case.what, *_cells(case, results)]) for case in cases]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, _totals(results.rows.values())])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(case: Case, results: Results) -> Iterator[str]:
    for layout, by in COLUMNS:
        row = results.rows.get((case.id, layout, by))
        yield _cell(case, row) if row else ""


def _cell(case: Case, row: Row) -> str:
    code = "/".join("∞" if code is None else str(code) for code in row.codes)
    if row.by == "torchrun" and {"its exit code", "does not end"} & set(row.wrong):
        code = f"**{code}**"
    parts = [code]
    if row.seconds is not None and case.bound != "any":
        parts.append(f"{row.seconds:.1f} s")
    if row.left:
        parts.append(f"**{row.left} left**")
    if row.by == "torchrun" and row.names:
        is_right = row.names.startswith("names rank") and "," not in row.names
        parts.append(row.names if is_right else f"**{row.names}**")
    if row.by == "distrun" and row.all_wrong:
        parts.append(f"**{'; '.join(row.all_wrong)}**")
    return " · ".join(parts)


def _totals(rows: Iterable[Row]) -> str:
    lines = ["## All of them", "", "| | launches | every sentence holds |", "|---|---|---|"]
    found = [*rows]
    for layout, by in COLUMNS:
        own = [row for row in found if (row.layout, row.by) == (layout, by)]
        right = sum(not row.all_wrong for row in own)
        lines.append(f"| {by} {layout} | {len(own)} | {right} |")
    return "\n".join(lines)
