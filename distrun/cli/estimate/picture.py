"""The memory of an estimate as an SVG file: a stacked bar a phase, and the GPU's capacity."""

from __future__ import annotations

from html import escape

from distrun.api.estimate import Estimate, Kind
from distrun.cli.estimate import view, words
from distrun.cli.screen.console import plain

_COLOURS: dict[Kind, str] = {
    "parameters": "#3b6fb6",
    "optimizer": "#5aa9c9",
    "gradients": "#8a63b3",
    "activations": "#4f9d57",
    "gathered": "#d9a441",
    "temporary": "#c8553d",
}
_WIDTH, _LEFT, _BAR, _GAP = 760, 100, 26, 14


def draw(found: Estimate) -> str:
    """Return the drawing."""
    memory, peaks = found.found.memory, found.found.work.peaks
    most = max(memory.device, memory.capacity or 0, 1)
    room = _WIDTH - _LEFT - 110
    parts = [_text(12, 24, view.headline(found), 15), _text(12, 44, _about(found), 12)]
    y = 64
    for peak in peaks:
        parts.append(_text(12, y + 18, peak.phase, 13))
        x = float(_LEFT)
        for kind, colour in _COLOURS.items():
            width = room * peak.nbytes.get(kind, 0) / most
            label = escape(f"{kind}: {words.size(peak.nbytes.get(kind, 0))}")
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}">'
                f"<title>{label}</title></rect>"
            )
            x += width
        parts.append(_text(x + 6, y + 18, words.size(peak.total), 12))
        y += _BAR + _GAP
    if memory.capacity:
        x = _LEFT + room * memory.capacity / most
        parts.append(
            f'<path d="M{x:.1f} 58V{y}" stroke="currentColor" stroke-dasharray="4 3" fill="none"/>'
        )
        parts.append(_text(x - 4, y + 14, words.size(memory.capacity), 12, end=True))
    y += 30
    for number, (kind, colour) in enumerate(_COLOURS.items()):
        x = 12 + number * (_WIDTH - 24) / len(_COLOURS)
        parts.append(f'<rect x="{x:.1f}" y="{y - 10}" width="11" height="11" fill="{colour}"/>')
        parts.append(_text(x + 16, y, kind, 12))
    size = f'viewBox="0 0 {_WIDTH} {y + 14}" width="{_WIDTH}" height="{y + 14}"'
    style = 'font-family="sans-serif" color="#444" fill="currentColor"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{"".join(parts)}</svg>\n'


def _about(found: Estimate) -> str:
    size = words.count(found.found.work.parameters)
    return f"{found.name}: {size} parameters on {words.where(found)}"


def _text(x: float, y: float, words: str, size: int, *, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x:.1f}" y="{y}" font-size="{size}"{anchor}>{escape(plain(words))}</text>'
