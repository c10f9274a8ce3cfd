"""`bench-comm` for programs: CSV, Markdown, the columns of nccl-tests, changes as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from distrun.bandwidth import DEFINITIONS
from distrun.cli.bench.table import cells, columns_of, digits

if TYPE_CHECKING:
    from distrun.api.bench_comm import Change
    from distrun.spec.bench import BenchReport, Row

_CSV = (
    *("op", "place", "nbytes", "count", "dtype", "redop", "root", "iterations"),
    *("min_s", "p50_s", "p95_s", "p99_s", "max_s", "mad_s", "cv", "noisy"),
    *("algbw", "busbw", "best_busbw", "wire"),
)
_NCCL_TYPES = {"float32": "float", "float64": "double", "float16": "half"}
_NCCL_OPS = {"mean": "avg"}


def as_csv(report: BenchReport) -> str:
    """Return a line a row; seconds, and bytes a second."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_CSV, "wrong"])
    for row in report.rows:
        wrong = "" if row.wrong is None else row.wrong_count
        writer.writerow([*("" if (v := getattr(row, name)) is None else v for name in _CSV), wrong])
    return out.getvalue()


def as_markdown(report: BenchReport) -> str:
    """Return the table, for an issue or a pull request."""
    names = columns_of(report)
    lines = [
        "| " + " | ".join(names) + " |",
        "|" + "|".join("---" if n in ("op", "place", "") else "---:" for n in names) + "|",
        *("| " + " | ".join(row) + " |" for row in cells(report)),
    ]
    return "\n".join(lines) + "\n"


def changes(found: Sequence[Change]) -> str:
    """Return the changed and unchanged rows of two reports as a JSON list."""
    return json.dumps(
        [
            {
                **{name: getattr(one.after, name) for name in ("op", "place", "nbytes", "dtype")},
                "before_p50_s": one.before.p50_s,
                "after_p50_s": one.after.p50_s,
                **{name: getattr(one, name) for name in ("ratio", "tolerance")},
                **{name: getattr(one, name) for name in ("judged", "moved", "regressed")},
            }
            for one in found
        ],
        indent=1,
    )


def as_nccl_tests(report: BenchReport) -> str:
    """Return what nccl-tests 2.19 prints (its util.cu), for programs that parse it."""
    return "\n".join(_nccl_lines(report)) + "\n"


def _nccl_lines(report: BenchReport) -> Iterator[str]:
    yield "# distrun bench-comm, columns as of nccl-tests"
    for rank in report.ranks:
        number = rank.rank if rank.local_rank is None else rank.local_rank
        yield (
            f"#  Rank {rank.rank:2d} Group  0 Pid {rank.pid or 0:6d} on {rank.host:>10}"
            f" device {number:2d} [{rank.pci_id or '0000:00:00'}] {rank.device}"
        )
    for op in dict.fromkeys(row.op for row in report.rows if row.nbytes):
        yield "#"
        yield f"# {op}"
        yield "#" + " " * 62 + "out-of-place" + " " * 23 + "in-place"
        yield (
            f"# {'size':>12}  {'count':>12}  {'type':>8}  {'redop':>6}  {'root':>6}"
            + f"  {'time':>7}  {'algbw':>6}  {'busbw':>6}  {'#wrong':>6}" * 2
        )
        yield (
            f"# {'(B)':>12}  {'(elements)':>12}  {'':>8}  {'':>6}  {'':>6}"
            + f"  {'(us)':>7}  {'(GB/s)':>6}  {'(GB/s)':>6}  {'':>6}" * 2
        )
        for nbytes in dict.fromkeys(row.nbytes for row in report.rows if row.op == op):
            rows = [r for r in report.rows if (r.op, r.nbytes) == (op, nbytes)]
            yield _nccl_row(rows, report.world_size)
    wrong = sum(row.wrong_count for row in report.rows)
    yield f"# Out of bounds values : {wrong} {'OK' if not wrong else 'FAILED'}"
    busbws = [row.busbw for row in report.rows if row.busbw is not None]
    # An average over sizes means little; it is printed because parsers look for it.
    yield f"# Avg bus bandwidth    : {digits(sum(busbws) / len(busbws) / 1e9 if busbws else 0)}"
    yield "#"


def _nccl_row(rows: list[Row], world_size: int) -> str:
    """Return a line, with zeros for what was not measured, and N/A for wrong elements.

    nccl-tests counts the elements of one rank where the size is all of them.
    """
    first = rows[0]
    by_place = {row.place: row for row in rows}
    redop = _NCCL_OPS.get(first.redop, first.redop) if first.redop else "none"
    root = -1 if first.root is None else first.root
    count = first.count // (world_size if DEFINITIONS[first.op].divides else 1)
    text = (
        f"  {first.nbytes:>12}  {count:>12}  {_NCCL_TYPES.get(first.dtype, first.dtype):>8}"
        f"  {redop:>6}  {root:>6}"
    )
    for place in ("out", "in"):
        row = by_place.get(place)
        if row is None:
            text += f"  {0:>7}  {0:>6}  {0:>6}  {'N/A':>6}"
            continue
        wrong = "N/A" if row.wrong is None else str(row.wrong_count)
        text += f"  {_fitted(row.p50_s * 1e6, 7):>7}"
        text += "".join(f"  {_fitted((bw or 0) / 1e9, 6):>6}" for bw in (row.algbw, row.busbw))
        text += f"  {wrong:>6}"
    return text


def _fitted(value: float, width: int) -> str:
    """Return a number that fits its column; a tiny one is wider rather than 0."""
    text = digits(value)
    return f"{value:.{width - 2}f}" if len(text) > width and 1e-3 <= value < 1 else text
