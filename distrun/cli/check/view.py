"""The screen of `distrun check`: nodes, GPUs, their connections, and the findings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import typer

from distrun.api.check import CheckReport, Gpu, Node, Severity
from distrun.cli.check import topology
from distrun.cli.check.findings import Line, count, lines_of, summary, where
from distrun.cli.screen.console import plain
from distrun.cli.screen.render import hanging, table

_STYLES = {
    Severity.FAIL: "bold red",
    Severity.WARN: "bold yellow",
    Severity.INFO: "bold cyan",
    Severity.SKIP: "dim",
}
NODE_COLUMNS = ("node", "kernel", "cores", "memory", "torch", "driver")
GPU_COLUMNS = ("GPU", "name", "memory", "util", "temp", "power", "processes")
_MOST_PROCESSES = 2
_PARAGRAPH = 78


def show(report: CheckReport, *, verbose: bool = False) -> None:
    """Print a report.

    Args:
        report: The report.
        verbose: Also print what could not be judged, and why each finding matters.
    """
    show_nodes(report.nodes)
    for nodes, matrix in topology.matrices(report):
        typer.echo()
        many = where([(name, "") for name in nodes], len(report.nodes))
        table([plain(many), *(row[0] for row in matrix)], matrix)
        typer.echo(textwrap.fill("; ".join(topology.legend(matrix)), _PARAGRAPH))
    for node in report.nodes:
        if node.measured is not None:
            from distrun.cli.check import deep  # and what a job needs

            typer.echo()
            deep.show(node.measured)
    typer.echo()
    _show_findings(lines_of(report), verbose=verbose)


def show_nodes(nodes: Sequence[Node]) -> None:
    """Print one line per node and one line per GPU."""
    table(NODE_COLUMNS, map(node_cells, nodes), right=("cores", "memory"), spare=("kernel",))
    with_gpus = [node for node in nodes if node.nvml.gpus]
    for node in nodes:
        if not (node.nvml.gpus or node.nvml.problem or node.problem):
            typer.echo(plain(f"{node.name}: the driver counts no GPU"))
    if not with_gpus:
        return
    typer.echo()
    several = len(nodes) > 1
    rows = [
        ([plain(node.name)] if several else []) + gpu_cells(gpu)
        for node in with_gpus
        for gpu in node.nvml.gpus
    ]
    columns = [*(["node"] if several else []), *GPU_COLUMNS]
    table(columns, rows, right=("GPU", "memory", "util", "temp", "power"), spare=("power", "temp"))


def node_cells(node: Node) -> list[str]:
    """Return the cells of a node."""
    name = plain(node.name)
    if node.problem:
        return [name, *[""] * (len(NODE_COLUMNS) - 2), "no answer"]
    host = node.host
    return [
        name,
        plain(host.kernel) or "-",
        _of(host.usable_cores, host.cpu_count),
        gib(min(filter(None, (host.memory_total_nbytes, host.memory_limit_nbytes)), default=None)),
        plain(node.software.torch) or "none",
        plain(node.nvml.driver_version or "") or "none",
    ]


def _of(usable: float | None, count: int | None) -> str:
    if usable is None or count is None or usable >= count:
        return f"{usable or count or 0:g}" if usable or count else "-"
    return f"{usable:g} of {count}"


def gpu_cells(gpu: Gpu) -> list[str]:
    """Return the cells of a GPU."""
    if gpu.lost:
        return [str(gpu.index), plain(f"LOST: {gpu.lost}"), *[""] * (len(GPU_COLUMNS) - 2)]
    return [
        str(gpu.index),
        plain(gpu.name.removeprefix("NVIDIA ")),
        memory(gpu),
        _with(gpu.utilization_percent, "%"),
        _with(gpu.temperature_c, "°C"),
        power(gpu),
        processes(gpu),
    ]


def memory(gpu: Gpu) -> str:
    """Return `0.5/79.6 GiB`."""
    if gpu.memory_used_nbytes is None or gpu.memory_total_nbytes is None:
        return gib(gpu.memory_total_nbytes)
    return f"{gpu.memory_used_nbytes / 2**30:.1f}/{gib(gpu.memory_total_nbytes)}"


def power(gpu: Gpu) -> str:
    """Return `112/700 W`."""
    if gpu.power_w is None:
        return "-"
    limit = "" if gpu.power_limit_w is None else f"/{gpu.power_limit_w:.0f}"
    return f"{gpu.power_w:.0f}{limit} W"


def processes(gpu: Gpu) -> str:
    """Return the processes on a GPU, the first few by name."""
    if gpu.processes is None:
        return "-"
    names = []
    for process in gpu.processes[:_MOST_PROCESSES]:
        words = process.command.split()
        program = words[0].rpartition("/")[2] if words else f"pid {process.pid}"
        names.append(plain(f"{process.user}: {program}" if process.user else program))
    more = len(gpu.processes) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def gib(nbytes: int | None) -> str:
    """Return `79.6 GiB`, or `-`."""
    return "-" if nbytes is None else f"{nbytes / 2**30:.1f} GiB"


def _with(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:g} {unit}"


def _show_findings(lines: Sequence[Line], *, verbose: bool) -> None:
    told = [line for line in lines if verbose or line.finding.severity > Severity.SKIP]
    after: list[Line | None] = [*told[1:], None]  # each with the next one
    hanging(
        (
            line.finding.severity.name,
            _STYLES[line.finding.severity],
            [plain(f"{line.finding.id}  {line.text}"), *_advice(line, following, verbose)],
        )
        for line, following in zip(told, after, strict=False)
    )
    skipped = sum(line.finding.severity == Severity.SKIP for line in lines)
    if told:
        typer.echo()
    hint = "" if verbose else " (--verbose)"
    unread = f"; {count(skipped, 'fact')} could not be judged{hint}" if skipped else ""
    typer.echo(f"{summary(lines)}{unread}")


def _advice(line: Line, following: Line | None, verbose: bool) -> Iterator[str]:
    """Yield the reason and the cure; once for consecutive lines of one rule."""
    seen = line.finding
    if following is not None and (following.finding.id, following.finding.fix) == (
        seen.id,
        seen.fix,
    ):
        return
    if verbose and seen.severity > Severity.SKIP:
        yield f"why: {seen.why} [{seen.source}]"
    if seen.severity >= Severity.WARN or (verbose and seen.severity == Severity.INFO):
        yield f"fix: {seen.fix}"
