"""The results of `bench-comm` as text: tables with four digits, and remarks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distrun.api.bench_comm import Change
    from distrun.spec.bench import BenchReport, Row

COLUMNS = (
    *("op", "size", "place", "min µs", "p50", "p95", "max", "cv %"),
    *("algbw", "busbw GB/s", "best", "#wrong", ""),
)

_PLACES = {"out": "out of place", "in": "in place"}
SPARE = ("best", "p95", "min µs", "cv %", "max", "algbw", "p99")
"""Columns that are left out on a narrow terminal, in this order."""
_BARS = "▁▂▃▄▅▆▇█"


def digits(value: float | None) -> str:
    """Return a number with four significant digits, never 0.000: 1234, 12.34, 0.001234."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    text = f"{value:.4g}"
    if "e" in text:
        exponent = int(text.partition("e")[2])
        text = f"{value:.0f}" if exponent > 0 else f"{value:.{3 - exponent}f}"
    return text


def size(nbytes: int) -> str:
    """Return 8 B, 64 KiB, 1.5 MiB."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if nbytes >= scale:
            return f"{digits(nbytes / scale)} {unit}"
    return f"{nbytes} B"


def _gb(value: float | None) -> str:
    return digits(None if value is None else value / 1e9)


def columns_of(report: BenchReport) -> Sequence[str]:
    """Return the heads of the table; `wire` and p99 only if there are such numbers."""
    names = list(COLUMNS)
    if any(row.p99_s is not None for row in report.rows):
        names.insert(names.index("max"), "p99")
    if any(row.wire is not None for row in report.rows):
        names.insert(names.index("#wrong"), "wire")
    if any(row.overlap is not None for row in report.rows):
        names[names.index("#wrong") : names.index("#wrong")] = ["loss %", "matmul loss %"]
    return names


def cells(report: BenchReport) -> Iterator[list[str]]:
    """Yield the cells of each row, in the columns of `columns_of`."""
    names = columns_of(report)
    for row in report.rows:
        texts = {
            "op": row.op,
            "size": size(row.nbytes) if row.nbytes else "",
            "place": "in" if row.place == "in" else "out",
            "min µs": digits(row.min_s * 1e6),
            "p50": digits(row.p50_s * 1e6),
            "p95": digits(row.p95_s * 1e6),
            "p99": digits(None if row.p99_s is None else row.p99_s * 1e6),
            "max": digits(row.max_s * 1e6),
            "cv %": f"{100 * row.cv:.0f}",
            "algbw": _gb(row.algbw),
            "busbw GB/s": _gb(row.busbw),
            "best": _gb(row.best_busbw),
            "wire": _gb(row.wire),
            "loss %": f"{100 * row.overlap.collective_loss:.0f}" if row.overlap else "-",
            "matmul loss %": f"{100 * row.overlap.matmul_loss:.0f}" if row.overlap else "-",
            "#wrong": "-" if row.wrong is None else str(row.wrong_count),
            "": "noisy" if row.noisy else "",
        }
        yield [texts[name] for name in names]


def heading(report: BenchReport) -> Iterator[str]:
    """Yield the lines above the table: the ranks, the mode and the units."""
    request = report.request
    nodes = f" on {report.nnodes} nodes" if report.nnodes > 1 else ""
    devices = ", ".join(dict.fromkeys(rank.device for rank in report.ranks))
    yield (
        f"{report.world_size} rank{'s' * (report.world_size != 1)}{nodes},"
        f" {report.backend} on {devices}, {request.dtype}, torch {report.versions['torch']}"
    )
    how = (
        "each iteration after a barrier, timed by itself"
        if request.mode == "latency"
        else "iterations queued, 8 at a time"
    )
    yield f"{request.mode} mode: {how}, as long as the slowest rank takes"
    yield "algbw and busbw are from p50, best is busbw from min; GB is 10^9 bytes"
    for op, definition in report.definitions.items():
        yield f"{op}: size = {definition.size}; busbw = algbw x {definition.busbw_factor}"


def _rounded(report: BenchReport) -> list[int]:
    """Return the requested sizes for which some op has no row."""
    by_op: dict[str, set[int]] = {}
    for row in report.rows:
        if row.nbytes:
            by_op.setdefault(row.op, set()).add(row.nbytes)
    left_out = {each.nbytes for each in report.skipped}
    asked = report.request.sizes if report.complete else ()
    return [s for s in asked if s not in left_out and any(s not in has for has in by_op.values())]


def remarks(report: BenchReport) -> Iterator[str]:
    """Yield the conclusions from the numbers, and the problems with them."""
    if odd := _rounded(report):
        yield (
            f"not measured as asked for: {', '.join(f'{nbytes} B' for nbytes in odd)}; sizes are"
            f" rounded to whole elements of {report.request.dtype}, in equal parts where every"
            " rank has one"
        )
    for model in report.models:
        half = size(int(model.half_nbytes))
        yield (
            f"{model.op}: T = {digits(model.alpha_s * 1e6)} µs + S / {_gb(model.bytes_per_s)} GB/s"
            f" (± {100 * model.error:.0f} %); half of that bandwidth at {half}"
        )
    for op in dict.fromkeys(row.op for row in report.rows if row.busbw is not None):
        yield _curve(op, [row for row in report.rows if row.op == op])
    noisy = [row for row in report.rows if row.noisy]
    if noisy:
        yield (
            f"{len(noisy)} of {len(report.rows)} rows are noisy (cv above 5 %, or max above 1.5"
            " p50), measured twice: not to be judged"
        )
    for each in report.skipped:
        yield f"left out: {each.op} of {size(each.nbytes)}: {each.why}"
    yield from wrong_lines(report.rows)
    if not report.complete:
        yield f"incomplete: {len(report.rows)} rows were done"


def _curve(op: str, rows: Sequence[Row]) -> str:
    """Return a small plot of busbw over the sizes, on a logarithmic scale."""
    best: dict[int, float] = {}
    for row in rows:
        best[row.nbytes] = max(best.get(row.nbytes, 0.0), row.busbw or 0.0)
    logs = [math.log(value) for value in best.values()]
    low, span = min(logs), max(max(logs) - min(logs), 1e-9)
    curve = "".join(_BARS[round((len(_BARS) - 1) * (x - low) / span)] for x in logs)
    sizes = list(best)
    return (
        f"{op}: busbw {curve} from {_gb(min(best.values()))} to {_gb(max(best.values()))} GB/s,"
        f" {size(sizes[0])} … {size(sizes[-1])}"
    )


def wrong_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each rank that got wrong elements."""
    for row in rows:
        for wrong in row.wrong or ():
            source = "" if wrong.source is None else f", which came from rank {wrong.source}"
            yield (
                f"WRONG: {row.op} of {size(row.nbytes)}: {wrong.count} elements on rank"
                f" {wrong.rank}, the first is [{wrong.first_index}]{source}"
            )


def change_lines(changes: Sequence[Change]) -> Iterator[str]:
    """Yield what changed between two reports, and how many rows did not."""
    for change in changes:
        if change.moved:
            row = change.after
            word = "SLOWER" if change.regressed else "faster"
            yield (
                f"{word}: {row.op} of {size(row.nbytes)}, {_PLACES[row.place]}:"
                f" p50 {digits(change.before.p50_s * 1e6)} -> {digits(row.p50_s * 1e6)} µs,"
                f" x {digits(change.ratio)} (tolerance {100 * change.tolerance:.0f} %)"
            )
    stayed = sum(change.judged and not change.moved for change in changes)
    noisy = sum(not change.judged for change in changes)
    yield f"{stayed} rows as before" + (f", {noisy} too noisy to be judged" if noisy else "")
