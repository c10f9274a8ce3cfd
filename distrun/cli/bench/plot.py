"""Plots of a benchmark; matplotlib is the extra `plot`, and is imported only to draw."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distrun.cli.bench.pairs import names_of
from distrun.cli.bench.table import size
from distrun.errors import UsageError
from distrun.extras import missing

if TYPE_CHECKING:
    from distrun.spec.bench import BenchReport, Pairs, Row

ENDINGS = (".svg", ".png", ".pdf")


def require() -> None:
    """Require matplotlib, before anything is measured.

    Raises:
        UsageError: It is not installed.
    """
    if command := missing("matplotlib", "plot"):
        raise UsageError("a plot needs matplotlib, which is not installed", command)


def draw(report: BenchReport, baseline: BenchReport | None, ending: str) -> bytes:
    """Draw busbw and time against size, and the map of pairs, if the report has them.

    Args:
        report: The report.
        baseline: The report to compare with.
        ending: One of `ENDINGS`.

    Returns:
        The content of the file.
    """
    from matplotlib.figure import Figure

    rows = [row for row in report.rows if row.busbw is not None]
    count = (2 if rows else 0) + (report.pairs is not None)
    figure = Figure(figsize=(5.5 * max(1, count), 4.2), layout="constrained")
    axes = list(figure.subplots(1, max(1, count), squeeze=False)[0])
    if rows:
        before = [row for row in baseline.rows if row.busbw is not None] if baseline else []
        _curves(axes.pop(0), rows, before, "busbw (GB/s)", "busbw", 1e-9)
        _curves(axes.pop(0), rows, before, "time, p50 (µs)", "p50_s", 1e6)
    if report.pairs is not None:
        names = names_of(report) if report.pairs.over == "node" else {}
        _heat_map(figure, axes.pop(0), report.pairs, names)
    figure.suptitle(
        f"{report.world_size} rank{'s' * (report.world_size != 1)},"
        f" {report.backend}, {report.ranks[0].device}, {report.request.mode} mode"
    )
    drawn = io.BytesIO()
    figure.savefig(drawn, format=ending.removeprefix("."))
    return drawn.getvalue()


def _curves(
    axes: Any, rows: list[Row], before: list[Row], label: str, field: str, scale: float
) -> None:
    drawn = {row.op: row.place for row in reversed(rows)}  # one line an op: the first place
    for number, op in enumerate(dict.fromkeys(row.op for row in rows)):
        colour = f"C{number % 10}"
        for source, style in ((before, ":"), (rows, "-")):
            mine = [row for row in source if (row.op, row.place) == (op, drawn[op])]
            name = op if source is rows else None
            axes.plot(
                [row.nbytes for row in mine],
                [scale * getattr(row, field) for row in mine],
                style,
                color=colour,
                marker="." if style == "-" else "",
                label=name,
            )
    axes.set(xscale="log", yscale="log", xlabel="size", ylabel=label)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda nbytes, _: size(int(nbytes)))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small", title="dotted: baseline" if before else None)


def _heat_map(figure: Any, axes: Any, pairs: Pairs, names: Mapping[int, str]) -> None:
    ends = sorted({end for link in pairs.links for end in (link.a, link.b)})
    place = {end: number for number, end in enumerate(ends)}
    grid = [[float("nan")] * len(ends) for _ in ends]
    for link in pairs.links:
        a, b = place[link.a], place[link.b]
        grid[a][b] = grid[b][a] = link.bandwidth / 1e9
    image = axes.imshow(grid, cmap="viridis", vmin=0)
    ticks, labels = range(len(ends)), [names.get(end, str(end)) for end in ends]
    axes.set(xticks=ticks, yticks=ticks, xticklabels=labels, yticklabels=labels)
    axes.set(xlabel=pairs.over, ylabel=pairs.over, title="GB/s between pairs")
    figure.colorbar(image, ax=axes)
