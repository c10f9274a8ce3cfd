"""How long a step takes: products, attention, memory and traffic, and what hides what.

    T = hidden(compute, traffic of weights) (1 + bubble) + traffic in the way + optimizer + input

Traffic of weights and gradients runs beside the computation: together they take
(compute^2 + traffic^2)^(1/2), between the longer of the two and their sum. That of tensor, context
and expert parallelism is in the way of the next product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distrun.estimate.kinds import Kind
from distrun.estimate.network import Cluster, strides
from distrun.estimate.work import Attention, Matmul, Work

UNCALIBRATED, ANCHORED = 0.20, 0.10
"""Bands: of published rows of 16 to 64 GPUs none was off by more."""
_MEMORY_PART = 0.8
"""Of the memory's bandwidth, in simple kernels."""
_BACKWARD = 2.5
"""FLOPs of attention's backward, per one of its forward: five products for two."""
_TOGETHER = 2.0
"""The exponent above."""
_HOST_UPDATE_BYTES_PER_S = 20e9
"""Memory traffic of an optimizer on a host's share of cores, a rank."""
_LAUNCH_S = 5e-6
_KERNELS = 90
"""What eager PyTorch takes to start a kernel, and those of a layer, forward and backward."""


@dataclass(frozen=True)
class StepTime:
    """The parts of a step, in seconds.

    Attributes:
        products: Matrix products.
        attention: Attention.
        memory: Norms, activations and loss, by the bandwidth of the memory.
        waiting: Of the GPU for the next kernel, which the CPU starts.
        hidden: Traffic beside the computation, alone; that of offloaded shards too.
        exposed: Traffic in the way of the computation.
        bubble: Waiting of the pipeline.
        optimizer: The update.
        input: Copies of the batch to the device; what the loaders take is not known.
        total: The step.
        band: By which part the total may be off.
    """

    products: float
    attention: float
    memory: float
    waiting: float
    hidden: float
    exposed: float
    bubble: float
    optimizer: float
    input: float
    total: float
    band: float

    @property
    def compute(self) -> float:
        """Computation alone."""
        return self.products + self.attention + self.memory + self.waiting


@dataclass(frozen=True)
class Pace:
    """What of a step's shape the time depends on beside its work.

    Attributes:
        mesh: Axes of the mesh, outermost first, and their sizes.
        accumulate: Micro-batches.
        stages: Ranks of the pipeline.
        rounds: Stages of a rank.
        layers: Layers of this rank.
    """

    mesh: Mapping[str, int]
    accumulate: int = 1
    stages: int = 1
    rounds: int = 1
    layers: int = 0


def step_time(work: Work, pace: Pace, cluster: Cluster, scale: float | None = None) -> StepTime:
    """Return the time of a step.

    Args:
        work: What the slowest rank does.
        pace: The shape of the step.
        cluster: Where it runs.
        scale: Measured by predicted time of an anchor; None: there is none.
    """
    kind = cluster.kind
    products = sum(_product_s(one, kind) for one in work.matmuls)
    attention = sum(_attention_s(one, kind, work) for one in work.attention)
    rate = kind.memory_bytes_per_s * _MEMORY_PART
    memory = (work.moved_nbytes.get("forward", 0) + work.moved_nbytes.get("backward", 0)) / rate
    offloads = work.offloads and kind.name != "cpu"
    updated = work.moved_nbytes.get("optimizer", 0)
    optimizer = updated / (_HOST_UPDATE_BYTES_PER_S if offloads else rate)
    launches = (work.kernels or pace.layers * pace.accumulate * _KERNELS) * _LAUNCH_S
    waiting = max(0.0, launches - products - attention - memory)
    compute = products + attention + memory + waiting
    often, once, exposed, after = _traffic(work, pace, cluster)
    often += work.host_nbytes / kind.host_bytes_per_s if offloads else 0.0
    beside = _beside(compute, often, once, pace.accumulate)
    bubble = (beside + exposed) * (pace.stages - 1) / (pace.accumulate * pace.rounds)
    factor = 1.0 if scale is None else scale
    copies = 0.0 if kind.name == "cpu" else work.input_nbytes / kind.host_bytes_per_s
    total = (beside + exposed + bubble + optimizer + after + copies) * factor
    band = UNCALIBRATED if scale is None else ANCHORED
    return StepTime(
        *(products, attention, memory, waiting, often + once, exposed + after),
        *(bubble, optimizer, copies, total, band),
    )


def _beside(compute: float, often: float, once: float, accumulate: int) -> float:
    """Return the time of computation with traffic beside it.

    Args:
        compute: Of all micro-batches.
        often: Traffic of every micro-batch, in all.
        once: Traffic of the last backward.
        accumulate: Micro-batches.
    """
    window = compute * 2 / 3 / accumulate if accumulate > 1 else compute
    part = window / compute if compute else 1.0
    early = _norm(compute - window, often * (1 - part))
    return early + _norm(window, often * part + once)


def _norm(a: float, b: float) -> float:
    return float((a**_TOGETHER + b**_TOGETHER) ** (1 / _TOGETHER))


def _traffic(work: Work, pace: Pace, cluster: Cluster) -> tuple[float, float, float, float]:
    """Return the seconds of traffic: hidden in every pass, hidden once, exposed, at the end."""
    often = once = exposed = after = 0.0
    distance = strides(pace.mesh)
    for one in work.collectives:
        time_s = cluster.time_s(one, distance.get(one.axis, 1))
        if one.phase == "optimizer":
            after += time_s
        elif one.axis not in work.beside:
            exposed += time_s
        elif one.recurs:
            often += time_s
        else:
            once += time_s
    return often, once, exposed, after


def _product_s(one: Matmul, kind: Kind) -> float:
    if not one.m * one.n * one.k:
        return 0.0  # an expert without tokens
    return one.count * 2 * one.m * one.n * one.k / (kind.peak(one.dtype) * efficiency(one, kind))


def efficiency(one: Matmul, kind: Kind) -> float:
    """Return the part of the peak that a matrix product reaches: less if a side is short.

    Where the peak is lower, as that of float32 is, the memory keeps up with shorter sides.
    """
    part, half = kind.matmul, kind.half_dim * kind.peak(one.dtype) / kind.peak("bfloat16")
    for side in (one.m, one.n, one.k):
        part *= side / (side + half)
    return part


def _attention_s(one: Attention, kind: Kind, work: Work) -> float:
    flops = 4.0 * one.batch * one.heads * one.queries * one.keys * one.head_dim * one.count
    flops *= (0.5 if one.causal else 1.0) * (_BACKWARD if one.phase == "backward" else 1.0)
    dtype = work.matmuls[0].dtype if work.matmuls else "bfloat16"
    return flops / (kind.peak(dtype) * kind.attention)
