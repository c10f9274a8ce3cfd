"""A planned training on a cluster: the memory of its fullest rank, the time of its slowest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from distrun.estimate import formula
from distrun.estimate.memory import Memory, memory
from distrun.estimate.network import Cluster
from distrun.estimate.recipe import Planned
from distrun.estimate.step_time import Pace, StepTime, step_time
from distrun.estimate.work import Work


@dataclass(frozen=True)
class Outcome:
    """What a training needs and takes.

    Attributes:
        work: Of the rank with the most memory.
        memory: Of that rank.
        time: Of a step, as long as the slowest rank takes; None without a cluster.
    """

    work: Work
    memory: Memory
    time: StepTime | None


def outcome(
    plan: Planned, cluster: Cluster | None, scale: float | None = None, *, replay: bool = True
) -> Outcome:
    """Return what a training needs and takes.

    Args:
        plan: What trains, and how it is spread.
        cluster: Where; None: the kind of GPU is not known.
        scale: Of an anchor.
        replay: Replay the allocator; without it a search is faster.

    Raises:
        UsageError: The layout does not divide the model.
    """
    return judged(_works(plan, replay=replay), plan.mesh, pace_of(plan), cluster, scale)


def judged(
    works: Sequence[Work],
    mesh: Mapping[str, int],
    pace: Pace,
    cluster: Cluster | None,
    scale: float | None = None,
) -> Outcome:
    """Return what some ranks of a job need and take: the fullest, and the slowest.

    Args:
        works: What each of them does.
        mesh: Axes and sizes, outermost first.
        pace: What else the time depends on.
        cluster: Where; None: the kind of GPU is not known.
        scale: Of an anchor.
    """
    kind = None if cluster is None else cluster.kind
    capacity = None if kind is None else kind.memory_nbytes
    cuda = kind is None or kind.name != "cpu"
    needs = [memory(work, mesh, capacity, cuda=cuda) for work in works]
    most = max(range(len(works)), key=lambda i: needs[i].device)
    time = None if cluster is None else _slowest(works, pace, cluster, scale)
    return Outcome(works[most], needs[most], time)


def _slowest(
    works: Sequence[Work], pace: Pace, cluster: Cluster, scale: float | None = None
) -> StepTime:
    return max((step_time(work, pace, cluster, scale) for work in works), key=lambda one: one.total)


def _works(plan: Planned, *, replay: bool) -> list[Work]:
    """Return the work of the first and the last stage, with the script's names of the axes."""
    stages = formula.extreme_stages(plan.training)
    return [_named(formula.work(plan.training, stage, replay=replay), plan) for stage in stages]


def time_alone(plan: Planned, cluster: Cluster) -> StepTime:
    """Return the time of a step without looking at memory."""
    stages = formula.extreme_stages(plan.training)
    works = [_named(formula.arithmetic(plan.training, stage), plan) for stage in stages]
    return _slowest(works, pace_of(plan), cluster)


def mesh_of(work: Work) -> dict[str, int]:
    """Return the axes that a traced rank communicates along, the longest groups first."""
    sizes = {one.axis: one.group_size for one in work.collectives if one.axis != "world"}
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def pace_of(plan: Planned) -> Pace:
    """Return what the time of a plan's step depends on beside its work."""
    layout, step = plan.training.layout, plan.training.step
    layers = plan.training.shape.layers // layout.pp
    return Pace(plan.mesh, step.accumulate, layout.pp, layout.rounds, layers)


def _named(work: Work, plan: Planned) -> Work:
    """Return the work with the script's names of the axes."""
    renamed = tuple(
        replace(one, axis=plan.axes.get(one.axis, one.axis)) for one in work.collectives
    )
    return replace(work, collectives=renamed)


def tokens_per_step(plan: Planned) -> int:
    """Return the tokens of all ranks in a step."""
    step = plan.training.step
    return step.rows * step.seq_len * step.accumulate * plan.training.layout.data


def model_flops(plan: Planned) -> float:
    """Return the FLOPs of a step over all ranks, as the recipes count them for MFU.

    6 a parameter and token without the embedding, and 12 layers D T for attention (PaLM,
    https://arxiv.org/abs/2204.02311, appendix B).
    """
    shape = plan.training.shape
    active = shape.parameters - (0 if shape.tied else shape.vocab * shape.dim)
    if shape.experts:
        one = (3 if shape.gated else 2) * shape.dim * shape.ffn
        active -= shape.layers * one * (shape.experts - shape.chosen)
    per_token = 6 * active + 12 * shape.layers * shape.queries * plan.training.step.seq_len
    return float(per_token) * tokens_per_step(plan)
