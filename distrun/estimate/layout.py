"""How a model is spread over ranks, in which number formats, and what one step is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from distrun.errors import UsageError
from distrun.estimate.shape import Shape

Recompute = Literal["none", "attention", "selective", "alternate", "full"]
"""What backward computes anew: the scores of attention alone (Megatron's selective), all but matrix
products, all but every second product (torchtitan's selective), or all."""
Flow = Literal["gpipe", "1f1b", "interleaved"]
_MOST_PASSES = 1 << 16
_MOST_LOGITS = 10**15
AXES = ("pp", "replicate", "shard", "cp", "tp")
"""The mesh, from the axis whose ranks are farthest apart to that of neighbours."""


@dataclass(frozen=True)
class Layout:
    """The sizes of the mesh, and what is sharded along it.

    Attributes:
        replicate: Copies of the (sharded) model that see different data.
        shard: Ranks that share one copy, and see different data too.
        tp: Ranks that share each matrix.
        pp: Ranks of a pipeline.
        cp: Ranks that share each sequence.
        ep: Ranks that share the experts; they are among those that see different data.
        stage: What `shard` shares: 0 nothing, 1 the optimizer's state, 2 gradients too,
            3 weights too (ZeRO, https://arxiv.org/abs/1910.02054).
        flow: The order of passes in a pipeline.
        rounds: Stages of a rank in a pipeline.
        offload: Shards and optimizer are in the host's memory.
    """

    replicate: int = 1
    shard: int = 1
    tp: int = 1
    pp: int = 1
    cp: int = 1
    ep: int = 1
    stage: Literal[0, 1, 2, 3] = 0
    flow: Flow = "1f1b"
    rounds: int = 1
    offload: bool = False

    @property
    def world_size(self) -> int:
        """All ranks."""
        return math.prod(getattr(self, axis) for axis in AXES)

    @property
    def data(self) -> int:
        """Ranks that see different sequences."""
        return self.replicate * self.shard

    @property
    def fully_sharded(self) -> bool:
        """Whether FSDP gathers the weights."""
        return self.stage >= 2 and self.shard > 1

    def stride(self, axis: str) -> int:
        """Return the distance of neighbours along an axis, in ranks."""
        return math.prod(getattr(self, inner) for inner in AXES[AXES.index(axis) + 1 :])

    def require_fits(self, shape: Shape, seq_len: int, *, by_cost: bool = False) -> None:
        """Refuse a layout that does not divide the model.

        Args:
            shape: The model.
            seq_len: Tokens of a sequence.
            by_cost: The pipeline's stages may have different numbers of layers.

        Raises:
            UsageError: It names the two numbers.
        """
        parts = [
            ("heads", shape.heads, self.tp, "tp"),
            ("kv_heads", shape.kv_heads, self.tp, "tp"),
            ("ffn", shape.ffn, self.tp, "tp"),
            ("vocab", shape.vocab, self.tp, "tp"),
            ("seq_len", seq_len, self.tp, "tp"),
            ("layers", shape.layers, 1 if by_cost else self.pp * self.rounds, "pp"),
            ("seq_len", seq_len, 2 * self.cp if self.cp > 1 else 1, "cp"),
            ("experts", shape.experts, self.ep, "ep"),
            ("data ranks", self.data, self.ep, "ep"),
        ]
        for what, value, count, by in parts:
            if value % count:
                raise UsageError(
                    f"{what} {value} does not divide among {count} ranks of {by}",
                    f"{by} must divide {value}",
                )
        if shape.experts == 0 and self.ep > 1:
            raise UsageError(f"ep={self.ep} without experts", "dims with experts=N")


@dataclass(frozen=True)
class Formats:
    """Bytes of an element, wherever elements are; and habits of a training loop.

    Attributes:
        weights: Of a stored weight.
        compute: Of matrix products and what they keep.
        residual: Of the residual stream.
        gradients: Of a gradient that the optimizer gets.
        reduce: Of a gradient on the wire, and of one that waits unsharded for the last micro-batch.
        optimizer: Of all optimizer state of one weight, a copy in float32 included.
        autocast: Weights are cast in each pass, and inputs of each product on their own.
        logits: Of the logits that the loss is given.
        loss: Of the loss's arithmetic.
        keeps_logits: The loop holds the logits during backward.
        bucket_views: Gradients are views of DDP's buckets.
        compiled: Blocks are compiled: what is cheap is not kept.
        embedding_apart: The embedding is a unit of FSDP on its own.
        root_stays: The last unit of FSDP stays gathered between forward and backward.
        embedding_cut: Tensor parallelism divides the embedding.
        loss_parallel: The loss works on logits cut along the vocabulary.
        norms_by_hand: Norms are written in Python, over a copy in float32 that autograd keeps.
        gathers_again: Under sequence parallel, products keep this rank's part of their input, and
            gather it in backward once more (Megatron).
        sequence_parallel: Norms and the residual stream are cut along the sequence under `tp`.
        expands_keys: Grouped keys and values are expanded to all heads before attention.
        flash: Attention keeps no scores.
        ring_by_hand: Attention of context parallelism is written in matrix products, over copies
            of queries and keys in float32, and backward computes it anew.
        copies_heads: Attention's result is in the order of heads, and copied for the next product.
        dropout: Masks of dropout, a byte an element, behind attention and feed-forward.
        chunks: Parts in which head and loss run one after another.
        buffered: Gradients are in one buffer that is never freed.
        agrees: The loop reduces the loss and the norm over all ranks, as the recipes do.
        keeps_outputs: A pipeline's schedule keeps the logits of all micro-batches, as torch's does.
        receives_all: A pipeline has a buffer to receive each micro-batch, as torch's schedules.
        by_cost: A pipeline is cut into stages of equal cost, in which the head counts too.
        loss_in_place: The softmax, and its gradient, overwrite the logits.
        other_nbytes: What no part of this accounts for, in bytes: without a pipeline, and with one.
        syncs_always: Gradients are reduced in each micro-batch, not in the last alone.
        doubles_gradients: A compiled model without FSDP holds its gradients twice.
    """

    weights: int = 4
    compute: int = 2
    residual: int = 2
    gradients: int = 4
    reduce: int = 4
    optimizer: int = 8
    autocast: bool = False
    logits: int = 4
    loss: int = 4
    keeps_logits: bool = False
    bucket_views: bool = True
    compiled: bool = False
    embedding_apart: bool = False
    root_stays: bool = True
    embedding_cut: bool = True
    loss_parallel: bool = True
    gathers_again: bool = False
    norms_by_hand: bool = False
    sequence_parallel: bool = True
    expands_keys: bool = False
    flash: bool = True
    ring_by_hand: bool = False
    copies_heads: bool = False
    dropout: bool = False
    chunks: int = 1
    buffered: bool = False
    keeps_outputs: bool = True
    receives_all: bool = True
    by_cost: bool = False
    loss_in_place: bool = False
    other_nbytes: tuple[int, int] = (0, 0)
    syncs_always: bool = False
    doubles_gradients: bool = False
    agrees: bool = False


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        seq_len: Tokens of a sequence.
        rows: Sequences of a micro-batch on one rank of the data axes.
        accumulate: Micro-batches.
        recompute: What backward computes anew.
    """

    seq_len: int
    rows: int
    accumulate: int = 1
    recompute: Recompute = "none"

    def local_tokens(self, layout: Layout) -> int:
        """Return the tokens of one micro-batch on one rank."""
        return self.rows * self.seq_len // layout.cp

    @property
    def input_nbytes(self) -> int:
        """The windows of a step as int64, with the token after the last."""
        return 8 * self.accumulate * self.rows * (self.seq_len + 1)


@dataclass(frozen=True)
class Training:
    """All that the formula is told."""

    shape: Shape
    layout: Layout
    formats: Formats
    step: Step

    def require_possible(self) -> None:
        """Refuse what cannot train.

        Raises:
            UsageError: A number is out of range, or does not divide.
        """
        self.shape.require_possible()
        for name in (*AXES, "ep", "rounds"):
            if getattr(self.layout, name) < 1:
                raise UsageError(f"{name}={getattr(self.layout, name)} is below 1", f"{name}=1")
        for name in ("seq_len", "rows", "accumulate"):
            if getattr(self.step, name) < 1:
                raise UsageError(f"{name}={getattr(self.step, name)} is below 1", f"{name}=1")
        if self.step.accumulate * self.layout.pp > _MOST_PASSES:
            raise UsageError(
                f"{self.step.accumulate} micro-batches are above {_MOST_PASSES // self.layout.pp}",
                "more sequences in each",
            )
        self.layout.require_fits(self.shape, self.step.seq_len, by_cost=self.formats.by_cost)
        logits = self.step.rows * self.step.seq_len * self.shape.vocab
        if logits > _MOST_LOGITS:
            raise UsageError(
                f"{self.step.rows} sequences of {self.step.seq_len} tokens have {logits:.1e}"
                f" logits, above {_MOST_LOGITS:.0e}",
                "fewer sequences in a micro-batch, or shorter ones",
            )
