"""The charts of a report: what belongs together, over steps and over time."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

from markupsafe import Markup

from distrun.report import scale
from distrun.report.chart import Chart, Curve, draw
from distrun.report.lines import Line, Numbers

MAX_PANELS, MAX_CURVES, _MAX_ALL = 24, 8, 400
_POINTS = 60_000
"""Points of all charts together, which keeps a report below 2 MB."""
COLOURS = 8
_FIRST = (
    ("Loss", re.compile(r"loss|.*_loss|.*/loss")),
    ("Learning rate", re.compile(r"lr|learning_rate|lr_.*")),
    ("Gradient norm", re.compile(r"grad_norm|gradient_norm")),
    ("Step time", re.compile(r"step_time_s")),
    ("Throughput", re.compile(r".*_per_s(_per_rank)?")),
    ("MFU", re.compile(r"mfu")),
    ("Memory", re.compile(r".*memory.*_nbytes|.*_memory_nbytes|memory_nbytes")),
)
"""Titles and the names below them; every other name has a chart of its own."""
_GPU = re.compile(r"gpu(\d+)_(.+)")
_SYSTEM = {
    "cpu_percent": "CPU",
    "ram_nbytes": "RAM in use",
    "disk_read_nbytes_per_s": "Disk, read",
    "disk_write_nbytes_per_s": "Disk, written",
    "net_received_nbytes_per_s": "Network, received",
    "net_sent_nbytes_per_s": "Network, sent",
    "utilisation_percent": "GPU utilisation",
    "memory_nbytes": "GPU memory in use",
    "power_w": "GPU power",
    "temperature_c": "GPU temperature",
}
_FROM_ZERO = frozenset(_SYSTEM.values()) - {"GPU temperature"}
Words = Callable[[float], str]


@dataclass(frozen=True)
class Panel:
    """One chart with its title, its legend and its numbers in words."""

    title: str
    over_steps: Markup
    over_time: Markup
    legend: Sequence[tuple[str, int]]
    facts: Sequence[str]
    note: str = ""


@dataclass(frozen=True)
class Named:
    """A line with the name it has in a legend."""

    line: Line
    name: str
    faint: bool = False
    since: float = 0.0
    """Where its axis of time begins."""


@dataclass(frozen=True)
class Unit:
    """How values of a name are shown."""

    words: Words
    """In a sentence."""
    name: str = ""
    """Behind the title of a chart; its axis has bare numbers."""
    size: float = 1.0
    """What a value is divided by on that axis."""


def unit_of(name: str, greatest: float = 0.0) -> Unit:
    """Return the unit of a name, for a chart up to a value."""
    size, byte_name = scale.byte_unit(greatest)
    if name.endswith("_nbytes"):
        return Unit(scale.nbytes, byte_name, size)
    if name.endswith("_nbytes_per_s"):
        return Unit(lambda v: f"{scale.nbytes(v)}/s", f"{byte_name}/s", size)
    if name == "mfu":
        return Unit(lambda v: f"{100 * v:.3g} %", "%", 0.01)
    if name.endswith("_s") and not name.endswith("_per_s"):
        return Unit(scale.seconds, "s")
    for ending, unit in (("_percent", "%"), ("_w", "W"), ("_c", "°C")):
        if name.endswith(ending):
            return Unit(lambda v, unit=unit: f"{scale.number(v)} {unit}", unit)  # type: ignore[misc]
    return Unit(scale.number)


def step_times(numbers: Numbers) -> list[Line]:
    """Return the time of each step, from the times of its records, of each rank and attempt."""
    best: dict[tuple[int, int], Line] = {}
    for (_, rank, attempt), line in numbers.lines.items():
        if len(line.steps) > len(best.get((rank, attempt), Line("", 0, 0)).steps):
            best[rank, attempt] = line
    found = []
    for (rank, attempt), line in sorted(best.items()):
        own = Line("step_time_s", rank, attempt)
        rows = list(zip(line.steps, line.times, strict=True))
        for (before, then), (step, time) in pairwise(rows):
            if step > before and time >= then:
                own.add(step, time, (time - then) / (step - before))
        if own.steps:
            found.append(own)
    return found


def training_panels(
    numbers: Numbers, started_at: float, marks: Sequence[tuple[float, str]]
) -> tuple[list[Panel], list[str], list[tuple[str, str]]]:
    """Return the charts of what ranks have logged.

    Args:
        numbers: The metrics.
        started_at: Where the axis of time begins.
        marks: Times of restarts, with words.

    Returns:
        The panels, names of values without one, and values that never change.
    """
    times = [] if numbers.of("step_time_s") else step_times(numbers)
    names = [*numbers.names, *(["step_time_s"] if times else [])]
    by_title: dict[str, list[str]] = defaultdict(list)
    constant: list[tuple[str, str]] = []
    lines_of = {name: numbers.of(name) for name in numbers.names} | {"step_time_s": times}
    if not lines_of["step_time_s"]:
        del lines_of["step_time_s"]
    for name in names:
        title = next((t for t, pattern in _FIRST if pattern.fullmatch(name)), name)
        if title != "Loss" and (fixed := _constant(lines_of[name])) is not None:
            constant.append((name, unit_of(name).words(fixed)))
            continue
        by_title[title].append(name)
    order = [title for title, _ in _FIRST if title in by_title]
    order += [title for title in by_title if title not in order]
    shown, left_out = order[:MAX_PANELS], order[MAX_PANELS:]
    groups = [
        [
            replace(each, since=started_at)
            for name in by_title[t]
            for each in _named(name, by_title[t], lines_of[name])
        ]
        for t in shown
    ]
    parts = _parts(groups)
    own = [(at - started_at, text) for at, text in marks]
    panels = [
        _panel(title, by_title[title][0], group, parts, own)
        for title, group in zip(shown, groups, strict=True)
    ]
    return [p for p in panels if p.over_steps or p.note], left_out, constant


def _named(name: str, names: Sequence[str], lines: Sequence[Line]) -> Iterable[Named]:
    """Yield the lines of a name; one for all ranks if they are the same, of many some."""
    ranks = sorted({line.owner for line in lines})
    last = max(line.attempt for line in lines)
    if len(ranks) > 1 and _alike(lines, ranks):
        ranks = ranks[:1]
    if len(ranks) > MAX_CURVES:
        ranks = _extreme(lines, ranks)
    for line in lines:
        if line.owner in ranks:
            whose = f"rank {line.owner}" if len(ranks) > 1 else ""
            label = whose if len(names) == 1 and whose else f"{name} {whose}".strip()
            yield Named(line, label, faint=line.attempt < last)


def _alike(lines: Sequence[Line], ranks: Sequence[int]) -> bool:
    """Return whether all ranks have logged the same values."""
    by_rank = [[(li.steps, li.values) for li in lines if li.owner == rank] for rank in ranks]
    return all(own == by_rank[0] for own in by_rank[1:])


def _extreme(lines: Sequence[Line], ranks: Sequence[int]) -> list[int]:
    middles = {
        rank: median([v for li in lines if li.owner == rank for v in li.finite] or [0.0])
        for rank in ranks
    }
    whole = median(middles.values())
    far = sorted(ranks, key=lambda rank: (-abs(middles[rank] - whole), rank))
    return sorted(far[:MAX_CURVES])


def _constant(lines: Sequence[Line]) -> float | None:
    values = {value for line in lines for value in line.values}
    return values.pop() if len(values) == 1 else None


def _parts(groups: Sequence[Sequence[Named]]) -> int:
    """Return in how many columns each curve is drawn, so that all together are not too large."""
    curves = sum(min(len(group), _MAX_ALL // max(1, len(groups))) for group in groups)
    return max(10, min(300, _POINTS // max(1, 8 * curves)))


def overlaid(name: str, group: Sequence[Named]) -> Panel:
    """Return the chart of one name of several runs."""
    title = next((t for t, pattern in _FIRST if pattern.fullmatch(name)), name)
    own = name if title in ("Loss", "Throughput") else title
    return _panel(own, name, group, _parts([group] * MAX_PANELS))


def _panel(
    title: str,
    name: str,
    group: Sequence[Named],
    parts: int,
    marks: Sequence[tuple[float, str]] = (),
) -> Panel:
    most = max(8, 8 * 300 // parts)
    drawn = group[:most]
    labels = list(dict.fromkeys(each.name for each in drawn))
    colours = {label: number % COLOURS for number, label in enumerate(labels)}
    unit = unit_of(name, max((abs(v) for e in drawn for v in e.line.finite), default=0.0))
    chart = [
        Curve(
            each.name,
            colours[each.name],
            each.line.steps,
            [value / unit.size for value in each.line.values],
            each.faint,
        )
        for each in drawn
    ]
    timed = [
        replace(curve, xs=[at - each.since for at in each.line.times])
        for curve, each in zip(chart, drawn, strict=True)
    ]
    ends = [each.line.times[-1] - each.since for each in drawn if each.line.times]
    style: dict[str, Any] = {"may_be_log": title in ("Loss", "Gradient norm"), "parts": parts}
    style["from_zero"] = title in _FROM_ZERO
    notes = _not_finite(group)
    if len(drawn) < len(group):
        notes.append(f"{len(drawn)} of {len(group)} lines are drawn")
    return Panel(
        f"{title}, {unit.name}" if unit.name and title != name else title,
        draw(Chart(chart, f"{title} over steps", **style)),
        draw(
            Chart(
                timed,
                f"{title} over time",
                x_text=scale.clock,
                x_unit=scale.time_unit(max(ends, default=0.0)),
                marks=marks,
                **style,
            )
        ),
        list(colours.items()) if len(colours) > 1 else [],
        _facts(group, unit.words),
        "; ".join(notes),
    )


def _facts(group: Sequence[Named], words: Words) -> list[str]:
    """Return the last value and the range of each name; of many ranks or nodes together."""
    labels = list(dict.fromkeys(each.name for each in group))
    if len(labels) > 2:
        every = [each.line for each in group]
        ends = [line.finite[-1] for line in every if line.finite]
        if not ends:
            return []
        return [f"last {_range(ends, words)}; of all {_range(_values(every), words)}"]
    found = []
    for label in labels:
        lines = [each.line for each in group if each.name == label]
        if values := _values(lines):
            last, reach = words(values[-1]), _range(values, words)
            said = last if last == reach else f"last {last}, {reach}"
            found.append(f"{label}: {said}" if len(labels) > 1 else said)
    return found


def _values(lines: Sequence[Line]) -> list[float]:
    return [value for line in lines for value in line.finite]


def _range(values: Sequence[float], words: Words) -> str:
    low, high = words(min(values)), words(max(values))
    return f"from {low} to {high}" if low != high else low


def _not_finite(group: Sequence[Named]) -> list[str]:
    found = []
    for each in group:
        bad = [s for s, v in zip(each.line.steps, each.line.values, strict=True) if v - v != 0]
        if bad:
            what = f"{len(bad)} value{'s are' if len(bad) > 1 else ' is'} not finite"
            found.append(f"{each.name}: {what}, first at step {bad[0]:g}")
    return found[:3]


def system_panels(numbers: Numbers, started_at: float, hosts: dict[int, str]) -> list[Panel]:
    """Return the charts of what was sampled on the nodes, all nodes in one view."""
    groups: dict[str, list[Named]] = defaultdict(list)
    for (name, node, _), line in sorted(numbers.system.items()):
        host = hosts.get(node, f"node{node}")
        if found := _GPU.fullmatch(name):
            groups[found[2]].append(Named(line, f"{host} GPU {found[1]}", since=started_at))
        elif name in _SYSTEM:
            groups[name].append(Named(line, host, since=started_at))
    order = [name for name in _SYSTEM if name in groups]
    parts = _parts([groups[name] for name in order])
    panels = [_panel(_SYSTEM[n], n, groups[n], parts) for n in order]
    return [panel for panel in panels if panel.over_time]
