"""The search for the best layout: what fits, in the order of time, and why the others lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from distrun.estimate.candidates import Candidate, candidates
from distrun.estimate.kinds import GIB
from distrun.estimate.memory import BAND, Memory
from distrun.estimate.network import Cluster
from distrun.estimate.outcome import outcome, time_alone
from distrun.estimate.recipe import Planned
from distrun.estimate.step_time import StepTime

_SHOWN = 3
"""Candidates of the winner's family in the table."""
_MOST_BUBBLE, _MOST_EXPOSED = 0.1, 0.15


@dataclass(frozen=True)
class Scored:
    """A candidate with what it needs and takes.

    Attributes:
        candidate: The layout.
        memory: Of its fullest rank.
        time: Of a step.
        why: Why it lost; "": it won.
        traced: Its memory is that of a trace.
        refused: Why it would not run at all; "": nothing speaks against it.
    """

    candidate: Candidate
    memory: Memory
    time: StepTime
    why: str = ""
    traced: bool = False
    refused: str = ""

    @property
    def fits(self) -> bool:
        """Whether it runs, and fits with the band to spare."""
        return self.memory.verdict == "fits" and not self.refused


@dataclass(frozen=True)
class Advice:
    """The result of a search.

    Attributes:
        rows: The winner, the next ones, and the best of each other family.
        tried: How many layouts were scored.
    """

    rows: tuple[Scored, ...]
    tried: int

    @property
    def winner(self) -> Scored | None:
        """The fastest that fits; None: nothing does."""
        return self.rows[0] if self.rows and not self.rows[0].why else None


def best(plan: Planned, cluster: Cluster) -> Advice:
    """Return the best layouts of a model on a cluster, with an equal global batch."""
    scored: list[Scored] = []
    tried, too_large = 0, set()
    for group in candidates(plan, cluster):
        training = group[0].plan.training
        if training.layout in too_large and training.step.accumulate > 1:
            continue  # nor did fewer sequences fit; without waiting gradients they may
        for one in group:  # less recomputation is faster: the first that fits is the best of them
            tried += 1
            found = _quick(one, cluster)
            if found.fits or one is group[-1]:
                scored.append(found)
                break
        if not found.fits:
            too_large.add(training.layout)
    families: dict[str, list[Scored]] = {}
    for each in sorted(scored, key=_order):
        families.setdefault(each.candidate.family, []).append(each)
    exact = [sorted(_exact(group[:_SHOWN], cluster), key=_order) for group in families.values()]
    exact.sort(key=lambda group: _order(group[0]))
    if not exact:
        return Advice((), tried)
    return _in_order([*exact[0], *(group[0] for group in exact[1:])], cluster.nproc_per_node, tried)


def revised(advice: Advice, nproc_per_node: int, traced: Mapping[int, Memory | str]) -> Advice:
    """Return the advice with what traces of some of its rows have shown.

    Args:
        advice: By the formula.
        nproc_per_node: GPUs of a node.
        traced: Place of a row -> its memory, or why it would not run.
    """
    rows = []
    for place, row in enumerate(advice.rows):
        found = traced.get(place)
        if isinstance(found, Memory):
            rows.append(replace(row, memory=found, traced=True))
        else:
            rows.append(replace(row, refused=found or ""))
    return _in_order(rows, nproc_per_node, advice.tried)


def _in_order(rows: Iterable[Scored], nproc_per_node: int, tried: int) -> Advice:
    """Return rows with the best first, each with why it lost."""
    ordered = sorted(rows, key=_order)
    told = (replace(row, why=_why(row, ordered[0], nproc_per_node)) for row in ordered)
    return Advice(tuple(told), tried)


def _order(one: Scored) -> tuple[bool, float]:
    return not one.fits, one.time.total if one.fits else -one.memory.headroom


def _exact(group: Iterable[Scored], cluster: Cluster) -> Iterator[Scored]:
    """Yield candidates with the allocator replayed over all layers."""
    for quick in group:
        result = outcome(quick.candidate.plan, cluster)
        assert result.time is not None  # there is a cluster
        yield Scored(quick.candidate, result.memory, result.time)


def _quick(one: Candidate, cluster: Cluster) -> Scored:
    """Score a candidate: time exactly, memory by models of two and three layers a stage.

    Each further layer adds as much as the third, so the rest is a straight line.
    """
    training = one.plan.training
    stages = training.layout.pp * training.layout.rounds
    if training.shape.layers <= 3 * stages:
        found = outcome(one.plan, cluster, replay=False)
    else:
        small, large = (
            outcome(_with_layers(one.plan, n * stages), cluster, replay=False) for n in (2, 3)
        )
        more = training.shape.layers / stages - 3
        device = large.memory.device + int(more * (large.memory.device - small.memory.device))
        whole = replace(large.memory, device=device)
        found = replace(large, memory=whole, time=time_alone(one.plan, cluster))
    assert found.time is not None  # there is a cluster
    reserved = replace(found.memory, device=int(found.memory.device * (1 + BAND / 2)))
    return Scored(one, reserved, found.time)


def _with_layers(plan: Planned, layers: int) -> Planned:
    shape = replace(plan.training.shape, layers=layers)
    return replace(plan, training=replace(plan.training, shape=shape))


def _why(one: Scored, winner: Scored, nproc_per_node: int) -> str:
    """Return why a candidate lost."""
    if one is winner and one.fits:
        return ""
    if one.refused:
        return one.refused
    if not one.fits:
        lacks = -one.memory.headroom / GIB
        return f"does not fit by {lacks:.{int(lacks < 10)}f} GiB" if lacks > 0 else "fits only just"
    time, training = one.time, one.candidate.plan.training
    told = [f"{time.total / winner.time.total - 1:+.0%}"]
    if time.bubble > _MOST_BUBBLE * time.total:
        told.append(f"bubble {time.bubble / time.total:.0%}")
    if training.layout.tp > nproc_per_node:
        told.append("tp across nodes")
    elif time.exposed > _MOST_EXPOSED * time.total:
        told.append(f"traffic {time.exposed / time.total:.0%}")
    if len(told) == 1 and training.step.recompute == "full":
        told.append("recomputes")
    return ", ".join(told)
