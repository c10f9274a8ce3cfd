"""The screen of an estimate: the verdict first, then memory, time and what is not certain."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import typer

from distrun.api.estimate import Estimate, Kind
from distrun.cli.estimate import words
from distrun.cli.screen import render
from distrun.cli.screen.console import plain, wants_colour

_BAR = 44
_SMALL_NBYTES = 1 << 20
KINDS: tuple[tuple[Kind, str, int], ...] = (
    ("parameters", "█", 34),
    ("optimizer", "▓", 36),
    ("gradients", "▒", 35),
    ("activations", "▚", 32),
    ("gathered", "▞", 33),
    ("temporary", "░", 31),
)
"""Kind of bytes -> how it is drawn, and in which colour."""


def show(found: Estimate) -> None:
    """Print an estimate."""
    _prose(headline(found))
    _prose(_model(found))
    typer.echo()
    for line in _memory(found):
        typer.echo(line)
    if found.found.time is not None:
        typer.echo()
        for line in _time(found):
            typer.echo(line)
    if found.remedies:
        typer.echo()
        _remedies(found)
    if lines := [*_notes(found)]:
        typer.echo()
        for line in lines:
            _prose(line)


def _prose(line: str) -> None:
    render.prose(plain(line))


def headline(found: Estimate) -> str:
    """Return the verdict in one line."""
    memory, time = found.found.memory, found.found.time
    each = "rank" if found.kind is None or found.kind.name == "cpu" else "GPU"
    needed = f"{words.size(memory.device)} of {words.size(memory.capacity or 0)} a {each}"
    verdict = {
        "fits": f"fits: {needed}",
        "tight": f"fits only just: {needed}, within the band of 6 %",
        "does not fit": f"DOES NOT FIT by {words.size(-memory.headroom)}: {needed}",
    }.get(memory.verdict or "", f"needs {words.size(memory.device)} a {each}")
    if time is None:
        return f"{verdict}; --gpus {found.gpus.nnodes}x{found.gpus.nproc_per_node}:KIND tells more"
    return f"{verdict}; a step takes {words.seconds(time.total)} ± {time.band:.0%}"


def _model(found: Estimate) -> str:
    parameters, work = words.count(found.found.work.parameters), found.found.work
    if found.plan is None:
        return (
            f"{found.name}: {parameters} parameters on {words.where(found)};"
            f" a rank sees {work.tokens} {work.samples} a step; traced"
        )
    step, formats = found.plan.training.step, found.plan.training.formats
    size = {2: "bfloat16", 4: "float32", 8: "float64"}[formats.compute]
    layout = found.plan.training.layout
    zero = f" (ZeRO-{layout.stage})" if layout.stage and layout.shard > 1 else ""
    batch = f"{step.rows} x {step.seq_len // layout.cp} tokens"
    parts = f", {step.accumulate} micro-batches" if step.accumulate > 1 else ""
    recompute = f", recompute {step.recompute}" if step.recompute != "none" else ""
    return (
        f"{found.name}: {parameters} parameters on {words.where(found)}{zero}, {size};"
        f" a rank sees {batch}{parts}{recompute}"
    )


def _memory(found: Estimate) -> Iterator[str]:
    memory = found.found.memory
    scale = max(memory.device, memory.capacity or 0) or 1
    yield (
        f"memory     allocated {words.size(memory.allocated)}   reserved"
        f" {words.size(memory.reserved)}   device {words.size(memory.device)}"
    )
    for peak in found.found.work.peaks:
        bar = "".join(
            _painted(symbol * round(_BAR * peak.nbytes.get(kind, 0) / scale), colour)
            for kind, symbol, colour in KINDS
        )
        most = "  <- peak" if peak is memory.peak or peak == memory.peak else ""
        yield f"{peak.phase:<11}{bar} {words.size(peak.total)}{most}"
    if memory.capacity:
        end = round(_BAR * memory.capacity / scale)
        yield f"{'':11}{'─' * max(0, end - 1)}┤ {words.size(memory.capacity)}"
    legend = [
        f"{_painted(symbol, colour)} {kind} {words.size(memory.peak.nbytes[kind])}"
        for kind, symbol, colour in KINDS
        if memory.peak.nbytes.get(kind)
    ]
    for start in range(0, len(legend), 3):
        yield f"{'':11}{'  '.join(legend[start : start + 3])}"


def _painted(text: str, colour: int) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if text and wants_colour(sys.stdout) else text


def _time(found: Estimate) -> Iterator[str]:
    time = found.found.time
    assert time is not None  # the caller asks
    how = "anchored to a run" if time.band < 0.2 else "uncalibrated"
    total = f"{words.seconds(time.total)} ± {time.band:.0%} ({how})"
    rate = f"{found.tokens_per_s:,.0f} {found.found.work.samples}/s"
    mfu = "" if found.mfu is None else f"   mfu {found.mfu:.1%}"
    yield f"step       {total}   {rate}{mfu}"
    parts = {
        "matrix products": time.products,
        "attention": time.attention,
        "memory-bound": time.memory,
        "waiting for the CPU": time.waiting,
        "optimizer": time.optimizer,
        "input": time.input,
        "bubble": time.bubble,
        "traffic beside it": time.hidden,
        "traffic in its way": time.exposed,
    }
    shown = [f"{name} {words.seconds(t)}" for name, t in parts.items() if t > time.total / 1000]
    for start in range(0, len(shown), 3):
        yield f"{'':11}{'   '.join(shown[start : start + 3])}"
    yield from _traffic(found)
    if found.days is not None and found.gpu_hours is not None:
        cost = "" if found.cost is None else f"   cost {found.cost:,.0f}"
        yield (
            f"training   {words.count(found.tokens or 0)} tokens in {found.days:,.3g} days,"
            f" {found.gpu_hours:,.0f} GPU hours{cost}"
        )


def _traffic(found: Estimate) -> Iterator[str]:
    """Yield how much each axis carries in a step."""
    by_axis: dict[tuple[str, str], int] = {}
    for one in found.found.work.collectives:
        key = (one.axis, one.op)
        by_axis[key] = by_axis.get(key, 0) + one.nbytes * one.count
    big = [item for item in by_axis.items() if item[1] > _SMALL_NBYTES]
    big = sorted(big, key=lambda item: -item[1])[:4]
    half = [f"{op} ({axis}) {words.size(nbytes)}" for (axis, op), nbytes in big]
    if found.found.work.offloads:
        half.append(f"host memory {words.size(found.found.work.host_nbytes)}")
    if half:
        for start in range(0, len(half), 2):
            head = "traffic" if start == 0 else ""
            yield f"{head:11}{'   '.join(half[start : start + 2])}"


def _remedies(found: Estimate) -> None:
    typer.echo("what would give room, and its price:")
    rows = [
        (
            f"  {one.name}",
            words.size(one.memory.device),
            one.memory.verdict or "",
            f"{one.slower - 1:+.0%} time",
        )
        for one in found.remedies
    ]
    render.table(("  change", "device", "", "price"), rows, right=("device", "price"))


def _notes(found: Estimate) -> Iterator[str]:
    for note in found.notes:
        yield f"note: {note}"
    for name, source in found.sources.items():
        yield f"{name}: {source}"
    if found.kind is not None and not found.kind.fitted and found.found.time is not None:
        yield f"note: step times on {found.kind.name} were compared with no published run"
