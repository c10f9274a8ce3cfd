"""What a job will need and take, before it runs: memory, traffic, step time, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distrun.api import calibration
from distrun.api.recipes import folder, script_of
from distrun.errors import UsageError
from distrun.estimate.kinds import Kind as GpuKind
from distrun.estimate.network import Cluster, Curve
from distrun.estimate.outcome import Outcome, mesh_of, model_flops, outcome, tokens_per_step
from distrun.estimate.recipe import Planned, planned, shape_of, without_script
from distrun.estimate.remedies import Remedy, remedies
from distrun.estimate.work import Kind
from distrun.spec.estimate import Gpus, dims_of, gpus_of
from distrun.spec.estimate_script import WITHOUT_SCRIPT, read_script, sizes, values_of

__all__ = [
    "Asked",
    "Estimate",
    "Kind",
    "as_json",
    "estimate",
    "plan_of",
]


@dataclass(frozen=True)
class Asked:
    """What the user asks.

    Attributes:
        words: The script, if any, and its flags.
        gpus: NODESxGPUS:KIND.
        nodes: Nodes.
        nproc_per_node: GPUs of a node.
        dims: Dimensions of the model.
        kinds: A file with kinds of the user's own.
        calibrate: A report of bench-comm.
        anchor: The directory of a run of the same script.
        tokens: Of the whole training.
        price: Of a GPU hour.
        exact: Trace all layers; only of a trace.
    """

    words: Sequence[str] = ()
    gpus: str | None = None
    nodes: int | None = None
    nproc_per_node: int | None = None
    dims: str | None = None
    kinds: Path | None = None
    calibrate: Path | None = None
    anchor: Path | None = None
    tokens: float | None = None
    price: float | None = None
    exact: bool = False


@dataclass(frozen=True)
class Estimate:
    """What a job is expected to need and to take.

    Attributes:
        name: Of the script, or of the model.
        gpus: What it runs on.
        plan: What trains, and how it is spread; None: of a script that only a trace knows.
        found: Memory and time.
        kind: Of the GPUs; None: not known.
        remedies: What would make it fit, or give room, with its price.
        notes: What is assumed, not exact or not validated.
        sources: Of the figures.
        script: Its file; None: there is none.
        kept: The flags that name model and data, as given, for a launch in another layout.
        tokens: Of the whole training, if the user gave it.
        price: Of a GPU hour, likewise.
    """

    name: str
    gpus: Gpus
    plan: Planned | None
    found: Outcome
    kind: GpuKind | None
    remedies: tuple[Remedy, ...] = ()
    notes: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    script: Path | None = None
    kept: tuple[str, ...] = ()
    tokens: float | None = None
    price: float | None = None

    @property
    def mesh(self) -> Mapping[str, int]:
        """Axes of the script's mesh and their sizes."""
        return mesh_of(self.found.work) if self.plan is None else self.plan.mesh

    @property
    def tokens_per_step(self) -> int:
        """Of all ranks; without a plan as if each saw others."""
        if self.plan is not None:
            return tokens_per_step(self.plan)
        return self.found.work.tokens * self.gpus.world_size

    @property
    def tokens_per_s(self) -> float | None:
        """Of all ranks."""
        time = self.found.time
        return None if time is None else self.tokens_per_step / time.total

    @property
    def mfu(self) -> float | None:
        """Model FLOPs by peak, as the recipes log it."""
        if self.found.time is None or self.kind is None or self.plan is None:
            return None
        peak = self.kind.peak(self.found.work.matmuls[0].dtype) * self.gpus.world_size
        return model_flops(self.plan) / self.found.time.total / peak

    @property
    def days(self) -> float | None:
        """Of the whole training."""
        rate = self.tokens_per_s
        return None if rate is None or self.tokens is None else self.tokens / rate / 86400

    @property
    def gpu_hours(self) -> float | None:
        """Of the whole training."""
        return None if self.days is None else self.days * 24 * self.gpus.world_size

    @property
    def cost(self) -> float | None:
        """Of the whole training, in the unit of the price."""
        hours = self.gpu_hours
        return None if hours is None or self.price is None else hours * self.price


def estimate(asked: Asked, *, with_remedies: bool = True) -> Estimate:
    """Return what a job will need and take, by the formula.

    Args:
        asked: What the user asks.
        with_remedies: Look for what would make it fit, too.

    Raises:
        UsageError: The job cannot be, or a file cannot be read.
    """
    require_numbers(asked)
    gpus = gpus_of(asked.gpus, asked.nodes, asked.nproc_per_node)
    kind, curves, sources = measured(asked, gpus)
    name, plan = plan_of(asked, gpus.world_size)
    scale = scale_of(asked, gpus, curves, sources)
    cluster = None if kind is None else Cluster(kind, gpus.nnodes, gpus.nproc_per_node, curves)
    found = outcome(plan, cluster, scale)
    more: tuple[Remedy, ...] = ()
    fits = found.memory.verdict == "fits"
    if with_remedies and cluster is not None and found.time is not None and not fits:
        more = remedies(plan, cluster, found.time.total / (scale or 1.0))
    return Estimate(
        name=name,
        gpus=gpus,
        plan=plan,
        found=found,
        kind=kind,
        remedies=more,
        notes=(*plan.assumed, *found.work.notes),
        sources=sources,
        script=script_named(asked),
        kept=_kept(asked),
        tokens=asked.tokens,
        price=asked.price,
    )


def require_numbers(asked: Asked) -> None:
    """Refuse tokens and prices that are none, and a price of nothing.

    Raises:
        UsageError: One is not above 0, or there is a price without tokens.
    """
    for flag, value, example in (
        ("--tokens", asked.tokens, "1e12"),
        ("--price", asked.price, "2.5"),
    ):
        if value is not None and not 0 < value < 1e30:
            raise UsageError(f"{flag} {value:g} is not a number above 0", f"{flag} {example}")
    if asked.price is not None and asked.tokens is None:
        raise UsageError("--price needs the tokens of the training", "--tokens 1e12 --price 2.5")


def plan_of(asked: Asked, world_size: int) -> tuple[str, Planned]:
    """Return the name and the plan of a job.

    Raises:
        UsageError: The script or the dimensions cannot train on so many ranks.
    """
    shape = None if asked.dims is None else shape_of(dims_of(asked.dims))
    path = script_named(asked)
    if path is not None:
        script = read_script(path)
        given = values_of(asked.words[1:], script.settings, path.name)
        return path.name, planned(script, given, world_size, shape)
    given = values_of(asked.words, WITHOUT_SCRIPT, "an estimate without a script")
    known = sizes(folder() / "fsdp.py")
    return given.get("size") or "the model", without_script(given, world_size, shape, known)


def script_named(asked: Asked) -> Path | None:
    named = asked.words and not asked.words[0].startswith("-")
    return script_of(asked.words[0]) if named else None


def _kept(asked: Asked) -> tuple[str, ...]:
    """Return the flags that a search does not choose."""
    path = script_named(asked)
    if path is None:
        return ()
    script = read_script(path)
    given = values_of(asked.words[1:], script.settings, script.path.name)
    kept: list[str] = []
    for name, value in given.items():
        if name in script.own or name in ("batch_size", "accumulate", "recompute"):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            kept.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            kept += [f"--{flag}", str(value)]
    return tuple(kept)


def measured(asked: Asked, gpus: Gpus) -> tuple[GpuKind | None, tuple[Curve, ...], dict[str, str]]:
    """Return the kind of GPU, the measured curves, and where figures come from."""
    kind = calibration.the_kind(gpus.kind, asked.kinds, gpus.nproc_per_node)
    sources = {} if kind is None else {kind.name: kind.source}
    found: tuple[Curve, ...] = ()
    if asked.calibrate is not None:
        found, sources["curves"] = calibration.curves(asked.calibrate, kind)
    return kind, found, sources


def scale_of(
    asked: Asked, gpus: Gpus, curves: tuple[Curve, ...], sources: dict[str, str]
) -> float | None:
    """Return measured by predicted step time of the anchor, if there is one."""
    if asked.anchor is None:
        return None
    run = calibration.ran(asked.anchor)
    kind = calibration.the_kind(gpus.kind, asked.kinds, run.nproc_per_node)
    if kind is None:
        raise UsageError("--anchor needs the kind of GPU", "--gpus 1x8:h100")
    _, plan = plan_of(replace(asked, words=run.words), run.nnodes * run.nproc_per_node)
    before = outcome(plan, Cluster(kind, run.nnodes, run.nproc_per_node, curves), replay=False)
    assert before.time is not None  # there is a cluster
    scale = run.step_s / before.time.total
    if not 0.1 < scale < 10:
        raise UsageError(
            f"--anchor {asked.anchor}: a step took {run.step_s:.3g} s, {scale:.3g} times what is"
            f" predicted for {kind.name}",
            "was it measured on this kind of GPU?",
        )
    sources["anchor"] = (
        f"{asked.anchor.name}: {run.step_s:.4g} s a step, {before.time.total:.4g} s predicted"
    )
    return scale


def as_json(found: Estimate) -> dict[str, Any]:
    """Return an estimate for JSON, sizes in bytes and times in seconds."""
    memory, plan = found.found.memory, found.plan
    return {
        "schema": 1,
        "name": found.name,
        "gpus": vars(found.gpus),
        "parameters": found.found.work.parameters,
        "mesh": dict(found.mesh),
        "zero": None if plan is None else plan.training.layout.stage,
        "step": None if plan is None else vars(plan.training.step),
        "tokens_per_step": found.tokens_per_step,
        "memory": {
            "allocated_nbytes": memory.allocated,
            "reserved_nbytes": memory.reserved,
            "device_nbytes": memory.device,
            "capacity_nbytes": memory.capacity,
            "verdict": memory.verdict,
            "peak": memory.peak.phase,
            "peaks": {one.phase: one.nbytes for one in found.found.work.peaks},
        },
        "time_s": None if found.found.time is None else vars(found.found.time),
        "tokens_per_s": found.tokens_per_s,
        "mfu": found.mfu,
        "days": found.days,
        "gpu_hours": found.gpu_hours,
        "cost": found.cost,
        "collectives": [vars(one) for one in found.found.work.collectives],
        "remedies": [
            {"name": one.name, "device_nbytes": one.memory.device, "slower": one.slower}
            for one in found.remedies
        ],
        "notes": list(found.notes),
        "sources": dict(found.sources),
    }
