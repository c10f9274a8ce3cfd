"""Pictures of a benchmark; matplotlib is the extra `plot`, and imported only to draw."""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrun.cli.bench_table import size
from distrun.errors import UsageError

if TYPE_CHECKING:
    from distrun.spec.bench import BenchReport, Pairs, Row

_SUFFIXES = (".svg", ".png", ".pdf")


def require(path: Path) -> None:
    """Refuse what could not be drawn, before anything is measured.

    Raises:
        UsageError: matplotlib is not installed, or the name has another ending.
    """
    if path.suffix not in _SUFFIXES:
        other = shlex.quote(str(path.with_suffix(".svg")))
        raise UsageError(f"--plot {path}: not a {', '.join(_SUFFIXES)}", f"--plot {other}")
    if find_spec("matplotlib") is None:
        install = f"{shlex.quote(sys.executable)} -m pip install 'matplotlib>=3.8'"
        raise UsageError("--plot needs matplotlib", install)


def draw(report: BenchReport, baseline: BenchReport | None, path: Path) -> None:
    """Draw busbw and time against size, and the map of pairs, whichever there are.

    Raises:
        UsageError: The file cannot be written.
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
        _heat_map(figure, axes.pop(0), report.pairs)
    figure.suptitle(
        f"{report.world_size} rank{'s' * (report.world_size != 1)},"
        f" {report.backend}, {report.ranks[0].device}, {report.request.mode} mode"
    )
    try:
        figure.savefig(path)
    except OSError as error:
        raise UsageError(f"--plot {path} cannot be written: {error.strerror}") from None


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


def _heat_map(figure: Any, axes: Any, pairs: Pairs) -> None:
    ends = sorted({end for link in pairs.links for end in (link.a, link.b)})
    place = {end: number for number, end in enumerate(ends)}
    grid = [[float("nan")] * len(ends) for _ in ends]
    for link in pairs.links:
        a, b = place[link.a], place[link.b]
        grid[a][b] = grid[b][a] = link.bandwidth / 1e9
    image = axes.imshow(grid, cmap="viridis", vmin=0)
    ticks = range(len(ends))
    axes.set(xticks=ticks, yticks=ticks, xticklabels=ends, yticklabels=ends)
    axes.set(xlabel=pairs.over, ylabel=pairs.over, title="GB/s between pairs")
    figure.colorbar(image, ax=axes)
