"""`distrun check --watch`: GPUs and memory of every node, updated every second."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

from distrun.cli.check.view import gib, memory, power, processes
from distrun.cli.screen.console import plain
from distrun.errors import ExitCode, MachineError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from distrun.api.check import Gpu, Machines, Node

_PERIOD_S = 1.0
_BARS = ((120, 12), (100, 8), (0, 4))
"""The least columns of a terminal, and the width of a bar."""
_HOT_MARGIN_C = 5
_FULL = 0.9


def watch(there: Machines) -> None:
    """Show nodes until Ctrl-C, or until none answers; in a pipe, a line per node and second.

    Raises:
        KeyboardInterrupt: The usual end.
        MachineError: No node answers any more.
    """
    signal.signal(signal.SIGTERM, _terminated)  # restores the screen, as after Ctrl-C
    if sys.stdout.isatty():
        _on_a_terminal(there)
    else:
        for nodes in _every_second(there):
            for node in nodes:
                print(line(node), flush=True)


def _terminated(*_: object) -> NoReturn:
    sys.exit(ExitCode.TERMINATED)


def _every_second(there: Machines) -> Iterator[Sequence[Node]]:
    due = time.monotonic()
    while True:
        nodes = there.read(quick=True)
        yield nodes
        if all(node.problem for node in nodes):
            raise MachineError(
                f"no node answers any more; {nodes[0].name}: {plain(nodes[0].problem)}",
                "`distrun check` without --watch tells more",
            )
        due = max(due + _PERIOD_S, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def _on_a_terminal(there: Machines) -> None:
    from rich.live import Live

    with Live(screen=True, auto_refresh=False) as live:
        for nodes in _every_second(there):
            live.update(frame(nodes, live.console.width), refresh=True)


def frame(nodes: Sequence[Node], columns: int) -> RenderableType:
    """Return the screen for so many columns."""
    from rich.console import Group
    from rich.text import Text

    width = next(width for least, width in _BARS if columns >= least)
    now = time.strftime("%H:%M:%S")
    parts: list[RenderableType] = [Text(f"distrun check --watch  {now}  Ctrl-C ends", "dim")]
    for node in nodes:
        parts += [Text(""), _heading(node, width)]
        if node.nvml.gpus:
            parts.append(_gpus(node.nvml.gpus, width))
    return Group(*parts)


def _heading(node: Node, width: int) -> Text:
    from rich.text import Text

    line = Text(plain(node.name), "bold")
    if node.problem:
        return line.append(f"  {plain(node.problem)}", "red not bold")
    total, available = node.host.memory_total_nbytes, node.host.memory_available_nbytes
    if total and available is not None:
        used = total - available
        line.append("  memory ", "not bold").append_text(bar(used / total, width))
        line.append(f" {used / 2**30:.1f}/{gib(total)}", "not bold")
    if not node.nvml.gpus:
        line.append(f"  no GPU: {plain(node.nvml.problem or 'NVML counts 0')}", "not bold")
    return line


def _gpus(gpus: Sequence[Gpu], width: int) -> RenderableType:
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        Column("GPU", no_wrap=True, min_width=3),
        Column("name", no_wrap=True),
        Column("util", no_wrap=True, min_width=width + 6),
        Column("memory", no_wrap=True, min_width=width + 14),
        Column("temp", no_wrap=True, min_width=5, justify="right"),
        Column("power", no_wrap=True, min_width=9, justify="right"),
        Column("processes", no_wrap=True),
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for gpu in gpus:
        if gpu.lost:
            table.add_row(str(gpu.index), Text(plain(f"LOST: {gpu.lost}"), "bold red"))
            continue
        used, total = gpu.memory_used_nbytes, gpu.memory_total_nbytes
        share = None if used is None or not total else used / total
        percent = gpu.utilization_percent
        table.add_row(
            str(gpu.index),
            Text(plain(gpu.name.removeprefix("NVIDIA "))),
            bar(None if percent is None else percent / 100, width).append(
                "    -" if percent is None else f" {percent:>3} %"
            ),
            bar(share, width).append(f" {memory(gpu)}"),
            Text("-" if gpu.temperature_c is None else f"{gpu.temperature_c} °C", _heat(gpu)),
            power(gpu),
            Text(processes(gpu)),
        )
    return table


def _heat(gpu: Gpu) -> str:
    limit = gpu.temperature_slowdown_c
    if gpu.temperature_c is None or limit is None or gpu.temperature_c < limit - _HOT_MARGIN_C:
        return ""
    return "bold red"


def bar(share: float | None, width: int) -> Text:
    """Return a bar for a fraction; it is empty if that is unknown."""
    from rich.text import Text

    filled = min(width, max(0, round((share or 0.0) * width)))
    style = "yellow" if (share or 0.0) >= _FULL else "green"
    return Text("█" * filled, style).append("░" * (width - filled), "dim")


def line(node: Node) -> str:
    """Return one line about a node, for a pipe."""
    now = time.strftime("%H:%M:%S")
    if node.problem:
        return plain(f"{now} {node.name}: {node.problem}")
    parts = [_in_short(gpu) for gpu in node.nvml.gpus] or [
        f"no GPU, {gib(node.host.memory_available_nbytes)} of memory available"
    ]
    return plain(f"{now} {node.name}: {'; '.join(parts)}")


def _in_short(gpu: Gpu) -> str:
    if gpu.lost:
        return f"GPU {gpu.index} lost"
    used = "-" if gpu.utilization_percent is None else f"{gpu.utilization_percent} %"
    heat = "-" if gpu.temperature_c is None else f"{gpu.temperature_c} °C"
    return f"GPU {gpu.index} {used} {memory(gpu)} {heat} {power(gpu)}"
