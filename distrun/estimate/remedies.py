"""What would make a training fit, and what each remedy costs in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from distrun.errors import UsageError
from distrun.estimate.layout import Training
from distrun.estimate.memory import Memory
from distrun.estimate.network import Cluster
from distrun.estimate.outcome import outcome
from distrun.estimate.recipe import Planned


@dataclass(frozen=True)
class Remedy:
    """A change, and what it brings.

    Attributes:
        name: What to change.
        memory: With it.
        slower: Time of a step, of the time before.
    """

    name: str
    memory: Memory
    slower: float


def remedies(plan: Planned, cluster: Cluster, before_s: float) -> tuple[Remedy, ...]:
    """Return changes that need less memory, those that fit first, then the cheapest."""
    found = []
    start = outcome(plan, cluster).memory.device
    for name, training in _changes(plan.training, can_offload=plan.can_offload):
        mesh = _mesh(plan, training)
        try:
            after = outcome(replace(plan, training=training, mesh=mesh), cluster)
        except UsageError:
            continue  # such a layout does not divide the model
        if after.memory.device >= start or after.time is None:
            continue
        found.append(Remedy(name, after.memory, after.time.total / before_s))
    order = {"fits": 0, "tight": 1, "does not fit": 2}
    return tuple(sorted(found, key=lambda one: (order[one.memory.verdict or "fits"], one.slower)))


def _changes(training: Training, *, can_offload: bool) -> Iterator[tuple[str, Training]]:
    layout, step = training.layout, training.step
    modes = ("none", "attention", "alternate", "selective", "full")
    for mode in ("selective", "full"):
        if modes.index(mode) > modes.index(step.recompute):
            yield f"--recompute {mode}", replace(training, step=replace(step, recompute=mode))
    for parts in (2, 4, 8):
        if step.rows % parts == 0:
            smaller = replace(step, rows=step.rows // parts, accumulate=step.accumulate * parts)
            yield f"--accumulate {smaller.accumulate}", replace(training, step=smaller)
            break
    if layout.data > 1 and layout.pp == layout.cp == layout.ep == 1:
        whole = replace(layout, replicate=1, shard=layout.data, stage=3)
        formats = replace(training.formats, autocast=False, residual=training.formats.compute)
        sharded = replace(training, layout=whole, formats=formats)
        if whole != layout:
            yield f"FSDP over {layout.data} ranks", sharded
        tight = replace(step, rows=1, accumulate=step.accumulate * step.rows, recompute="full")
        yield f"FSDP over {layout.data}, rows 1, full recompute", replace(sharded, step=tight)
    if layout.fully_sharded and not layout.offload and can_offload:
        yield "--offload", replace(training, layout=replace(layout, offload=True))


def _mesh(plan: Planned, training: Training) -> dict[str, int]:
    """Return the mesh, with the axes of the data as the training has them now."""
    layout, before = training.layout, plan.training.layout
    if layout == replace(before, offload=layout.offload):
        return dict(plan.mesh)
    return {"replicate": layout.replicate, "shard": layout.shard, "tp": layout.tp}
