"""What one rank does in one step: all that memory, step time and advice are computed from.

The formula writes it in closed form, the tracer by running the script's own parts. Everything after
it (`memory`, `step_time`, `advice`) reads this alone, so that both can be held against each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["forward", "backward", "optimizer"]
Kind = Literal["parameters", "gradients", "optimizer", "activations", "gathered", "temporary"]
"""What live bytes are: `gathered` are whole weights and gradients of a sharded module."""

OFFLOADED = (
    "shards, gradients and optimizer are in the memory of the host, and not counted; the update"
    " there is taken to move 20 GB/s a rank, which has not been validated"
)
"""A note of work that offloads."""

BESIDE = ("shard", "replicate", "data", "world")
"""Axes of weights and gradients, as the formula and the recipes name them."""


@dataclass(frozen=True)
class Collective:
    """Equal calls of one collective in one step of one rank.

    Attributes:
        op: A name of `bandwidth.DEFINITIONS`.
        axis: The mesh axis that it runs over, as the script names it.
        group_size: Ranks of its group.
        nbytes: Size of one call, as `bandwidth.DEFINITIONS` counts it.
        count: Calls in a step.
        phase: When.
        recurs: Each micro-batch has its part of them, and not the last one all.
    """

    op: str
    axis: str
    group_size: int
    nbytes: int
    count: int
    phase: Phase
    recurs: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Matmul:
    """Equal matrix products [m, k] x [k, n] in one step of one rank: 2 m n k FLOPs each."""

    m: int
    n: int
    k: int
    count: int
    dtype: str
    phase: Phase


@dataclass(frozen=True)
class Attention:
    """Equal calls of attention: 4 batch heads queries keys head_dim FLOPs forward, without a mask.

    Attributes:
        batch: Sequences.
        heads: Heads of the queries on this rank.
        queries: Tokens that ask.
        keys: Tokens that are asked.
        head_dim: Width of a head.
        causal: Whether a token sees only those before it, which halves the work.
        count: Calls in a step; those of backward stand for themselves.
        phase: When.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    head_dim: int
    causal: bool
    count: int
    phase: Phase


@dataclass(frozen=True)
class Peak:
    """The live bytes of a rank at the moment of a phase when they are most."""

    phase: Phase
    nbytes: dict[Kind, int]

    @property
    def total(self) -> int:
        """All kinds together, in bytes."""
        return sum(self.nbytes.values())


@dataclass(frozen=True)
class Work:
    """One step of one rank.

    Attributes:
        parameters: Elements of the whole model.
        tokens: Tokens (or samples) of this rank in a step, over all micro-batches.
        samples: What `tokens` counts: "tokens" or "samples".
        collectives: Traffic.
        beside: Axes whose traffic, of weights and gradients, runs beside the computation.
        matmuls: Matrix products.
        attention: Calls of attention.
        moved_nbytes: Bytes that other operations read and write in device memory, by phase.
        peaks: The peak of each phase.
        reserved_nbytes: What the caching allocator holds for these peaks.
        input_nbytes: What is copied to the device: the batch.
        offloads: Whether shards, gradients and optimizer are in the memory of the host.
        host_nbytes: What travels between the device and that memory.
        kernels: Operations of forward and backward that a GPU is told one by one; 0: not counted.
        notes: What is not exact, one sentence each.
    """

    parameters: int
    tokens: int
    samples: Literal["tokens", "samples"]
    collectives: tuple[Collective, ...]
    matmuls: tuple[Matmul, ...]
    attention: tuple[Attention, ...]
    moved_nbytes: dict[Phase, int]
    peaks: tuple[Peak, ...]
    reserved_nbytes: int
    input_nbytes: int = 0
    offloads: bool = False
    host_nbytes: int = 0
    beside: tuple[str, ...] = BESIDE
    kernels: int = 0
    notes: tuple[str, ...] = ()

    @property
    def allocated(self) -> int:
        """The most live bytes of the step."""
        return max(peak.total for peak in self.peaks)
