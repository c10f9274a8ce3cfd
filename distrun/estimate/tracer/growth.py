"""The peaks of the whole model from the allocations of two small ones, moment by moment.

With more layers another moment may be the peak. So each allocation of the smaller trace is paired
with the same one of the larger trace, whose passes have some layers more in their middle, and what
is live there is followed along a straight line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from distrun.estimate.depths import Line
from distrun.estimate.tracer.ledger import PHASES, Ledger
from distrun.estimate.work import Kind, Peak, Phase


class Moment(NamedTuple):
    """What is live behind an allocation, or behind the end of one."""

    nbytes: int
    """Of the allocation; negative: its end."""
    live: dict[Kind, int]


Pass = tuple[Phase, list[Moment]]


def grown_peaks(few: Ledger, more: Ledger, line: Line) -> tuple[Peak, ...] | None:
    """Return the peaks of the whole model; None if the traces differ in more than layers."""
    first, second = passes(few), passes(more)
    if [phase for phase, _ in first] != [phase for phase, _ in second]:
        return None
    most: dict[Phase, dict[Kind, int]] = {}
    for (phase, a), (_, b) in zip(first, second, strict=True):
        for one, other in _pairs(a, b):
            kinds = {*one.live, *other.live}
            live = {k: line(one.live.get(k, 0), other.live.get(k, 0)) for k in kinds}
            if sum(live.values()) > sum(most.get(phase, {}).values()):
                most[phase] = live
    return tuple(
        Peak(phase, {kind: n for kind, n in sorted(most[phase].items()) if n})
        for phase in PHASES
        if phase in most
    )


def passes(ledger: Ledger) -> list[Pass]:
    """Return the moments of the step that counts, those of one pass together."""
    found = groupby(ledger.moments(), key=lambda moment: moment[0])
    return [(phase, [Moment(n, live) for _, n, live in group]) for phase, group in found]


def _pairs(few: Sequence[Moment], more: Sequence[Moment]) -> Iterator[tuple[Moment, Moment]]:
    """Yield the moments that begin both passes alike, then those after them that end both alike."""
    begin = 0
    for one, other in zip(few, more, strict=False):
        if one.nbytes != other.nbytes:
            break
        begin += 1
        yield one, other
    for one, other in zip(reversed(few[begin:]), reversed(more[begin:]), strict=False):
        if one.nbytes != other.nbytes:
            break
        yield one, other
