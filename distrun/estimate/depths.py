"""From the traces of two small numbers of layers to the whole model: everything grows linearly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from distrun.estimate.buckets import buckets
from distrun.estimate.exchange import Answer, Trace
from distrun.estimate.work import Collective, Kind, Peak, Phase, Work

_Part = TypeVar("_Part", bound=Any)


def whole(answer: Answer) -> Work:
    """Return the work of the model that was asked for.

    Its buckets of DistributedDataParallel are assigned anew: they do not grow linearly.
    """
    if len(answer.traces) == 1:
        return answer.traces[0].work
    few, more = answer.traces
    line = Line(few.layers, more.layers, answer.layers)
    work = _grown(few.work, more.work, line, tuple(answer.peaks))
    if few.gradients and stretched(few.gradients, more.gradients, 1) == more.gradients:
        work = replace(work, collectives=_with_buckets(work, few, more, line))
    return work


class Line:
    """The straight line through the values of two numbers of layers.

    Args:
        few: The first number.
        more: The second.
        all_of_them: Where the line is read.
    """

    def __init__(self, few: int, more: int, all_of_them: int) -> None:
        self.steps, self.step = all_of_them - few, more - few

    def __call__(self, first: int, second: int) -> int:
        """Return the value at the end, at least 0."""
        return max(0, first + (second - first) * self.steps // self.step)


def _grown(few: Work, more: Work, line: Line, known: tuple[Peak, ...]) -> Work:
    phases: tuple[Phase, ...] = ("forward", "backward", "optimizer")
    peaks = known or _peaks(few.peaks, more.peaks, line)
    allocated = max(peak.total for peak in peaks)
    ratio = max(work.reserved_nbytes / work.allocated for work in (few, more))
    # Segments come in steps: a line through two small models may leave every proportion.
    reserved_nbytes = min(line(few.reserved_nbytes, more.reserved_nbytes), int(allocated * ratio))
    return replace(
        few,
        parameters=line(few.parameters, more.parameters),
        collectives=_counted(few.collectives, more.collectives, line),
        matmuls=_counted(few.matmuls, more.matmuls, line),
        attention=_counted(few.attention, more.attention, line),
        moved_nbytes={
            p: line(few.moved_nbytes.get(p, 0), more.moved_nbytes.get(p, 0)) for p in phases
        },
        peaks=peaks,
        input_nbytes=more.input_nbytes,
        host_nbytes=line(few.host_nbytes, more.host_nbytes),
        kernels=line(few.kernels, more.kernels),
        reserved_nbytes=max(reserved_nbytes, allocated),
    )


def _counted(few: Sequence[_Part], more: Sequence[_Part], line: Line) -> tuple[_Part, ...]:
    """Return calls with the counts of the whole model; those of other sizes grow in size."""
    first = {replace(part, count=0): part.count for part in few}
    second = {replace(part, count=0): part.count for part in more}
    lone = [part for part in few if replace(part, count=0) not in second]
    grown = [part for part in more if replace(part, count=0) not in first]
    both = [
        replace(part, count=line(first.get(part, 0), second.get(part, 0)))
        for part in {**first, **second}
        if part in first and part in second
    ]
    if len(lone) == len(grown) and all(hasattr(part, "nbytes") for part in lone):
        both += [
            replace(a, nbytes=line(a.nbytes, b.nbytes)) for a, b in zip(lone, grown, strict=True)
        ]
    else:
        both += [replace(part, count=line(0, part.count)) for part in grown]
    return tuple(part for part in both if part.count)


def _peaks(few: Sequence[Peak], more: Sequence[Peak], line: Line) -> tuple[Peak, ...]:
    second = {peak.phase: peak.nbytes for peak in more}
    found = []
    for peak in few:
        other = second.get(peak.phase, peak.nbytes)
        kinds: list[Kind] = sorted({*peak.nbytes, *other})
        nbytes = {k: line(peak.nbytes.get(k, 0), other.get(k, 0)) for k in kinds}
        found.append(Peak(peak.phase, nbytes))
    return tuple(found)


def _with_buckets(work: Work, few: Trace, more: Trace, line: Line) -> tuple[Collective, ...]:
    """Return the collectives with the all_reduces of the buckets of the whole model."""
    sizes = stretched(few.gradients, more.gradients, line.steps // line.step)
    made = Counter(
        sum(sizes[place][1] for place in bucket) for bucket in buckets(sizes, more.bucket_nbytes)
    )
    of_buckets = {
        sum(trace.gradients[place][1] for place in bucket)
        for trace in (few, more)
        for bucket in buckets(trace.gradients, trace.bucket_nbytes)
    }
    reduces = [
        c for c in (*few.work.collectives, *more.work.collectives)
        if c.op == "all_reduce" and c.phase == "backward" and c.nbytes in of_buckets
    ]  # fmt: skip
    if not reduces:
        return work.collectives
    axis = reduces[0].axis
    others = [
        c
        for c in work.collectives
        if not (c.op == "all_reduce" and c.phase == "backward" and c.axis == axis)
    ]
    return (*others, *(replace(reduces[0], nbytes=n, count=k) for n, k in made.items()))


def stretched(few: Sequence[_Part], more: Sequence[_Part], times: int) -> list[_Part]:
    """Return a list that repeats, `times` times, what `more` has beyond `few`.

    Both begin alike and end alike: the ends of a model, with its layers between them.
    """
    begin = 0
    while begin < len(few) and few[begin] == more[begin]:
        begin += 1
    period = more[begin : begin + len(more) - len(few)]
    return [*more[:begin], *(list(period) * times), *few[begin:]]
