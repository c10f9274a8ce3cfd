"""Line charts as SVG: text of the page's own font, colours of its own style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from distrun.report.decimate import Point, decimated, means
from distrun.report.scale import Axis, axis, exact_axis, tick

_WIDTH, _HEIGHT = 380.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 8.0, 8.0, 22.0
_CHAR = 6.2
"""Width of a character of an axis, for the room between two ticks."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    name: str
    colour: int
    """Number of a colour of the style sheet."""
    xs: Sequence[float]
    ys: Sequence[float]
    faint: bool = False
    """Of an earlier attempt, or of many ranks."""


@dataclass(frozen=True)
class Chart:
    """A chart over steps or over time."""

    curves: Sequence[Curve]
    label: str
    """For readers that are read to."""
    may_be_log: bool = False
    from_zero: bool = False
    parts: int = 300
    marks: Sequence[tuple[float, str]] = ()
    """Positions on the x axis with their words: restarts."""
    x_unit: float = 1.0
    """Ticks of the x axis are round in this unit."""
    x_text: Callable[[float], str] = field(default=tick)
    y_text: Callable[[float], str] = field(default=tick)


def draw(chart: Chart) -> Markup:
    """Return the chart; "" without a finite value."""
    shown = [(curve, decimated(curve.xs, curve.ys, chart.parts)) for curve in chart.curves]
    xs = [curve.xs[i] for curve, kept in shown for i in (*kept[:1], *kept[-1:])]
    ys = [curve.ys[i] for curve, kept in shown for i in kept]
    if not ys:
        return Markup("")
    x_axis = exact_axis(min(xs), max(xs), chart.x_unit)
    y_axis = axis(ys, may_be_log=chart.may_be_log, from_zero=chart.from_zero)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img"'
        f' aria-label="{escape(chart.label)}">',
        *_y_ticks(y_axis, chart.y_text),
        *_x_ticks(x_axis, chart.x_text),
        *(_mark(x_axis, at, text) for at, text in chart.marks),
        *(_line(curve, kept, x_axis, y_axis, chart.parts) for curve, kept in shown if kept),
        *_not_finite(chart.curves, x_axis),
        "</svg>",
    ]
    return Markup("".join(parts))  # every text in it is escaped


def _x(axis_: Axis, value: float) -> float:
    return _LEFT + axis_.at(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis_: Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis_.at(value) * (_HEIGHT - _TOP - _BOTTOM)


def _y_ticks(axis_: Axis, words: Callable[[float], str]) -> list[str]:
    return [
        f'<path class="grid" d="M{_LEFT:g} {y:.1f}H{_WIDTH - _RIGHT:g}"/>'
        f'<text x="{_LEFT - 5:g}" y="{y + 3.5:.1f}" class="end">{escape(words(value))}</text>'
        for value in axis_.ticks(4)
        for y in [_y(axis_, value)]
    ]


def _x_ticks(axis_: Axis, words: Callable[[float], str]) -> list[str]:
    drawn, free = [], -1e9
    for value in axis_.ticks(5):
        x, text = _x(axis_, value), words(value)
        half = len(text) * _CHAR / 2
        x = min(max(x, half), _WIDTH - half)
        if x - half > free:
            free = x + half + 6
            drawn.append(f'<text x="{x:.1f}" y="{_HEIGHT - 6:g}" class="mid">{escape(text)}</text>')
    return drawn


def _line(curve: Curve, kept: list[int], x_axis: Axis, y_axis: Axis, parts: int) -> str:
    """Return a curve; of one with many points its range, and on top the mean of each column."""
    style = f"c{curve.colour}" + (" faint" if curve.faint else "")
    title = f"<title>{escape(curve.name)}</title>"
    if len(kept) == 1:
        x, y = _x(x_axis, curve.xs[kept[0]]), _y(y_axis, curve.ys[kept[0]])
        return f'<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="2.5">{title}</circle>'
    whole = _path([(curve.xs[i], curve.ys[i]) for i in kept], x_axis, y_axis)
    if not (mean := means(curve.xs, curve.ys, parts)):
        return f'<path class="line {style}" d="{whole}">{title}</path>'
    middle = _path(mean, x_axis, y_axis)
    return (
        f'<path class="line range {style}" d="{whole}">{title}</path>'
        f'<path class="line {style}" d="{middle}">{title}</path>'
    )


def _path(points: Sequence[Point], x_axis: Axis, y_axis: Axis) -> str:
    return "M" + "L".join(f"{_x(x_axis, x):.1f} {_y(y_axis, y):.1f}" for x, y in points)


def _mark(x_axis: Axis, at: float, text: str) -> str:
    if not 0 <= x_axis.at(at) <= 1:
        return ""
    x = _x(x_axis, at)
    title = f"<title>{escape(text)}</title>"
    return f'<path class="mark" d="M{x:.1f} {_TOP:g}V{_HEIGHT - _BOTTOM:g}">{title}</path>'


def _not_finite(curves: Sequence[Curve], x_axis: Axis) -> list[str]:
    """Return a cross on the x axis for values that are NaN or infinite, one a pixel."""
    at = {
        round(_x(x_axis, x))
        for curve in curves
        for x, y in zip(curve.xs, curve.ys, strict=True)
        if not math.isfinite(y) and 0 <= x_axis.at(x) <= 1
    }
    y = _HEIGHT - _BOTTOM
    return [
        f'<path class="nan" d="M{x - 3} {y - 3:g}l6 6m0 -6l-6 6"><title>not finite</title></path>'
        for x in sorted(at)
    ]
