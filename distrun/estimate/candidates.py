"""The layouts that the recipes can train a model in, on given GPUs, with an equal global batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from distrun.errors import UsageError
from distrun.estimate.layout import Formats, Layout, Recompute, Step, Training
from distrun.estimate.network import Cluster
from distrun.estimate.presets import PRESETS
from distrun.estimate.recipe import Planned

_TP = (1, 2, 4, 8, 16)
_PP = (1, 2, 4, 8, 16)
_CP = (1, 2, 4, 8)
_MODES: tuple[Recompute, ...] = ("none", "selective", "full")
_MOST_ROWS = 64
_LONG = 16384
"""Tokens of a sequence from which on context parallelism is tried."""


@dataclass(frozen=True)
class Candidate:
    """One layout.

    Attributes:
        family: What kind of layout it is; the best of each is shown.
        recipe: The recipe that trains so.
        flags: The recipe's flags of the layout.
        plan: For the formula.
    """

    family: str
    recipe: str
    flags: tuple[str, ...]
    plan: Planned

    @property
    def words(self) -> tuple[str, ...]:
        """All flags that the search has chosen."""
        step = self.plan.training.step
        batch = step.rows * step.accumulate * self.plan.training.layout.data
        chosen = [*self.flags, "--batch-size", str(batch), "--accumulate", str(step.accumulate)]
        if step.recompute != "none":
            chosen += ["--recompute", step.recompute]
        return tuple(chosen)

    def with_passes(self, accumulate: int) -> Candidate:
        """Return the candidate with another number of micro-batches of the same size."""
        step = replace(self.plan.training.step, accumulate=accumulate)
        return replace(
            self, plan=replace(self.plan, training=replace(self.plan.training, step=step))
        )


def candidates(plan: Planned, cluster: Cluster) -> Iterator[list[Candidate]]:
    """Yield lists of candidates that differ in recomputation alone, the least of it first."""
    training = plan.training
    sequences = training.step.rows * training.step.accumulate * training.layout.data
    for family, recipe, flags, layout, mesh in _layouts(training, cluster):
        try:
            layout.require_fits(training.shape, training.step.seq_len)
        except UsageError:
            continue  # it does not divide the model
        if sequences % layout.data:
            continue
        formats = training.formats
        if plan.recipe:
            formats = _formats(training.formats, recipe, layout)
            formats = replace(formats, ring_by_hand=recipe == "cp" and "torch" not in flags)
        for step in _steps(training.step, sequences // layout.data, layout):
            planned = Planned(
                Training(training.shape, layout, formats, step), mesh, {}, plan.recipe
            )
            first = Candidate(family, recipe, flags, planned)
            yield [_recomputing(first, mode) for mode in _MODES]


def _recomputing(one: Candidate, mode: Recompute) -> Candidate:
    return _with_step(one, replace(one.plan.training.step, recompute=mode))


def _with_step(one: Candidate, step: Step) -> Candidate:
    training = replace(one.plan.training, step=step)
    return replace(one, plan=replace(one.plan, training=training))


_Found = tuple[str, str, tuple[str, ...], Layout, dict[str, int]]


def _layouts(training: Training, cluster: Cluster) -> Iterator[_Found]:
    world, tied = cluster.world_size, training.shape.tied
    if training.shape.experts:
        yield "ep", "moe", (), Layout(replicate=world, ep=world), {"ep": world}
        return
    yield "ddp", "ddp_gpt", (), Layout(replicate=world), {"replicate": world}
    yield "zero1", "zero1", (), Layout(shard=world, stage=1), {"shard": world}
    yield from _sharded(world, cluster)
    for tp in (tp for tp in _TP[1:] if not world % tp and not tied):
        rest = world // tp
        if rest == 1:
            yield "tp", "tp", (), Layout(tp=tp), {"tp": tp}
            continue
        mesh = {"shard": rest, "tp": tp}
        flags = ("--tp", str(tp))
        yield f"tp {tp}", "fsdp_tp", flags, Layout(shard=rest, tp=tp, stage=3), mesh
    for pp in (pp for pp in _PP[1:] if not tied):
        for tp in (tp for tp in _TP if not world % (pp * tp)):
            yield from _pipelines(world // (pp * tp), pp, tp)
    kernel = () if cluster.kind.name == "cpu" else ("--attention", "torch")
    for cp in _CP[1:] if training.step.seq_len >= _LONG else ():
        if world % cp == 0:
            mesh, flags = {"replicate": world // cp, "cp": cp}, ("--cp", str(cp), *kernel)
            yield "cp", "cp", flags, Layout(replicate=world // cp, cp=cp), mesh


def _sharded(world: int, cluster: Cluster) -> Iterator[_Found]:
    """Yield FSDP over all ranks, and in copies of a node and more."""
    shard = world
    while shard > 1:
        copies = world // shard
        mesh = {"replicate": copies, "shard": shard}
        flags = ("--replicate", str(copies)) if copies > 1 else ()
        family = "hsdp" if copies > 1 else "fsdp"
        yield family, "fsdp", flags, Layout(replicate=copies, shard=shard, stage=3), mesh
        zero2 = Layout(replicate=copies, shard=shard, stage=2)
        yield f"{family}, zero2", "fsdp", (*flags, "--no-reshard"), zero2, mesh
        if shard % 2 or shard // 2 < cluster.nproc_per_node:
            return
        shard //= 2


def _pipelines(rest: int, pp: int, tp: int) -> Iterator[_Found]:
    if tp > 1:
        mesh = {"pp": pp, "shard": rest, "tp": tp}
        flags = ("--pp", str(pp), "--tp", str(tp))
        yield "pp x tp", "pp_fsdp_tp", flags, Layout(pp=pp, shard=rest, tp=tp, stage=2), mesh
        return
    for flow, rounds in (("1f1b", 1), ("interleaved", 2)):
        mesh, flags = {"pp": pp, "shard": rest}, ("--pp", str(pp), "--flow", flow)
        layout = Layout(pp=pp, shard=rest, stage=2, flow=flow, rounds=rounds)  # type: ignore[arg-type]
        yield "pp x fsdp", "pp", (*flags, "--beside", "fsdp"), layout, mesh


def _formats(asked: Formats, recipe: str, layout: Layout) -> Formats:
    """Return the formats of the recipe in the precision that was asked for."""
    if asked.compute != 2:
        return asked
    casts = "fsdp" if layout.stage >= 2 else "autocast"
    views = recipe in ("ddp_gpt", "zero1", "cp")
    whole = recipe != "pp_fsdp_tp"
    found = PRESETS[casts][1]
    same = {name: getattr(asked, name) for name in ("compiled", "agrees", "copies_heads")}
    if layout.pp > 1:
        found = replace(found, keeps_logits=True, keeps_outputs=False)
    return replace(found, bucket_views=views, loss_parallel=whole, **same)


def _steps(asked: Step, sequences: int, layout: Layout) -> Iterator[Step]:
    """Yield ways to cut a rank's sequences into micro-batches."""
    rows = 1
    while rows <= min(sequences, _MOST_ROWS):
        accumulate = sequences // rows
        enough = layout.pp == 1 or accumulate >= layout.pp * layout.rounds
        if sequences % rows == 0 and enough:
            yield Step(asked.seq_len, rows, accumulate)
        rows *= 2
