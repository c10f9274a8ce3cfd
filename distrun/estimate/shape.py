"""The dimensions of a transformer, and the parameters that follow from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from distrun.errors import UsageError

MOST_LAYERS = 2000
LARGEST = 10**15
"""Elements of a model above this are a typing error."""
Cut = Literal["rows", "rest", "none"]


@dataclass(frozen=True)
class Weight:
    """One parameter.

    Attributes:
        name: As in the recipes' model, without the number of the layer.
        rows: Its dim 0, along which FSDP shards.
        rest: The product of its other dims.
        cut: What tensor parallelism divides.
        multiplies: Whether it is a matrix of a product, which autocast casts.
        expert: Whether ranks of `ep` have different ones, along dim 0.
    """

    name: str
    rows: int
    rest: int = 1
    cut: Cut = "none"
    multiplies: bool = True
    expert: bool = False

    @property
    def count(self) -> int:
        """Its elements."""
        return self.rows * self.rest

    def on_rank(self, tp: int, ep: int) -> tuple[int, int]:
        """Return rows and rest of the part on one rank of `tp` and `ep`."""
        rows = self.rows // (tp if self.cut == "rows" else 1) // (ep if self.expert else 1)
        return rows, self.rest // (tp if self.cut == "rest" else 1)


@dataclass(frozen=True)
class Shape:
    """The dimensions of a transformer of one kind of layer.

    Attributes:
        layers: Blocks.
        dim: Width of the residual stream, D.
        heads: Heads of the queries.
        kv_heads: Heads of keys and values; fewer than `heads` is grouped-query attention.
        head_dim: Width of a head.
        ffn: Width of the feed-forward network.
        vocab: Words.
        tied: One matrix as embedding and head.
        gated: SwiGLU with three matrices; else GELU with two.
        biases: Linears and norms have biases.
        positions: Learned positions; 0: rotary.
        experts: Of a block, 0: one feed-forward network.
        chosen: Experts of a token.
    """

    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool = False
    gated: bool = True
    biases: bool = False
    positions: int = 0
    experts: int = 0
    chosen: int = 2

    @property
    def queries(self) -> int:
        """Width of all heads of the queries."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all heads of the keys."""
        return self.kv_heads * self.head_dim

    @property
    def parameters(self) -> int:
        """Elements of the whole model."""
        block = sum(weight.count for weight in self.block())
        ends = (*self.embedding(), *self.end())
        return self.layers * block + sum(weight.count for weight in ends)

    def embedding(self) -> tuple[Weight, ...]:
        """Return the parameters before the first layer."""
        words = Weight("embed", self.vocab, self.dim, "rows", multiplies=self.tied)
        learned = Weight("positions", self.positions, self.dim, multiplies=False)
        return (words, learned) if self.positions else (words,)

    def end(self) -> tuple[Weight, ...]:
        """Return the parameters behind the last layer."""
        head = () if self.tied else (Weight("head", self.vocab, self.dim, "rows"),)
        return (*self._norm("norm"), *head)

    def block(self) -> tuple[Weight, ...]:
        """Return the parameters of one layer, in the order of their definition."""
        return (
            *self._norm("attention_norm"),
            *self._linear("q", self.queries, self.dim, "rows"),
            *self._linear("k", self.keys, self.dim, "rows"),
            *self._linear("v", self.keys, self.dim, "rows"),
            *self._linear("out", self.dim, self.queries, "rest"),
            *self._norm("feed_forward_norm"),
            *(self._experts() if self.experts else self._feed_forward()),
        )

    def _feed_forward(self) -> Iterator[Weight]:
        if self.gated:
            yield from self._linear("gate", self.ffn, self.dim, "rows")
        yield from self._linear("up", self.ffn, self.dim, "rows")
        yield from self._linear("down", self.dim, self.ffn, "rest")

    def _experts(self) -> Iterator[Weight]:
        yield Weight("router", self.experts, self.dim)
        for name in ("gate", "up", "down") if self.gated else ("up", "down"):
            yield Weight(name, self.experts, self.dim * self.ffn, expert=True)

    def _norm(self, name: str) -> Iterator[Weight]:
        yield Weight(name, self.dim, multiplies=False)
        if self.biases:
            yield Weight(f"{name}.bias", self.dim, multiplies=False)

    def _linear(self, name: str, rows: int, columns: int, cut: Cut) -> Iterator[Weight]:
        yield Weight(name, rows, columns, cut)
        if self.biases:
            yield Weight(f"{name}.bias", rows, cut="rows" if cut == "rows" else "none")

    def require_possible(self) -> None:
        """Refuse dimensions that no model has.

        Raises:
            UsageError: One is below 1, they do not divide, or their product overflows.
        """
        for name in ("layers", "dim", "heads", "kv_heads", "head_dim", "ffn", "vocab"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} is below 1", f"{name}=1 or more")
        if self.layers > MOST_LAYERS:
            raise UsageError(f"layers={self.layers} is above {MOST_LAYERS}", "layers=32")
        if self.heads % self.kv_heads:
            raise UsageError(
                f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}",
                "each head of the keys serves equally many of the queries",
            )
        if self.parameters > LARGEST:
            raise UsageError(
                f"the dimensions make {self.parameters:.1e} parameters, above {LARGEST:.0e}",
                "check layers, dim, ffn and vocab",
            )
