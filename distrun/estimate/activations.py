"""What the layers of a transformer keep for backward, in bytes.

Counted as torch's operations save tensors: a linear saves its input, a product both factors,
attention its inputs, its output and a logsumexp in float32. Norms are fused, as on a GPU: they save
their input and one number a token. The totals without flash attention are those of Table 2 of
https://arxiv.org/abs/2205.05198.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from distrun.estimate.layout import Recompute, Training


@dataclass(frozen=True)
class Op:
    """One operation of a layer.

    Attributes:
        name: What it is.
        saved: Bytes of the tensors that backward needs, without recomputation.
        temporary: Bytes that are live while it runs.
        products: Bytes of the outputs of its matrix products, in their order.
        kept_anyway: Bytes that selective recomputation keeps beside products.
    """

    name: str
    saved: tuple[int, ...]
    temporary: int = 0
    products: tuple[int, ...] = ()
    kept_anyway: tuple[int, ...] = ()


@dataclass(frozen=True)
class Activations:
    """The bytes of one micro-batch on one rank."""

    training: Training

    @cached_property
    def tokens(self) -> int:
        """Tokens that matrix products see."""
        return self.training.step.local_tokens(self.training.layout)

    @cached_property
    def norm_tokens(self) -> int:
        """Tokens of the residual stream: fewer under sequence parallel."""
        cut = self.training.layout.tp if self.training.formats.sequence_parallel else 1
        return self.tokens // cut

    @property
    def residual(self) -> int:
        """The residual stream between two layers."""
        return self.training.formats.residual * self.norm_tokens * self.training.shape.dim

    @property
    def stream(self) -> int:
        """All tokens, whole, as a matrix product takes them."""
        return self.training.formats.compute * self.tokens * self.training.shape.dim

    def logits(self, nbytes: int, *, local: bool = False) -> int:
        """Return the bytes of the logits in elements of `nbytes`; `local`: this rank's part."""
        formats, layout = self.training.formats, self.training.layout
        cut = (layout.tp if local or formats.loss_parallel else 1) * formats.chunks
        return nbytes * self.tokens * self.training.shape.vocab // cut

    def block(self) -> tuple[Op, ...]:
        """Return the operations of one layer."""
        experts = self.training.shape.experts
        return (
            self.norm("attention_norm", 3),
            *self._attention(),
            self.norm("feed_forward_norm", 2 if self.training.shape.gated and not experts else 1),
            *(self._experts() if experts else self._feed_forward(self.tokens)),
        )

    def norm(self, name: str, consumers: int) -> Op:
        """Return a norm, with the input of the matrix products behind it."""
        formats, layout = self.training.formats, self.training.layout
        own = formats.residual * self.norm_tokens * self.training.shape.dim
        per_token = 4 * self.norm_tokens
        if formats.norms_by_hand and not formats.compiled:  # the copy, and what is scaled
            per_token += (4 + formats.compute) * self.norm_tokens * self.training.shape.dim
        gathers = layout.tp > 1 and formats.sequence_parallel
        if formats.compiled and not gathers:  # computed anew from its input
            return Op(name, (per_token,), own)
        if formats.autocast:
            whole = formats.residual * self.tokens * self.training.shape.dim if gathers else 0
            return Op(name, (per_token, *[self.stream] * consumers), own + whole)
        if gathers and formats.gathers_again:
            return Op(name, (per_token, own), self.stream)
        return Op(name, (per_token, self.stream), own if gathers else 0)

    def _attention(self) -> Iterator[Op]:
        shape, layout, formats = (
            self.training.shape,
            self.training.layout,
            self.training.formats,
        )
        one = formats.compute * self.tokens // layout.tp
        queries, keys = one * shape.queries, one * shape.keys
        seen = queries if formats.expands_keys else keys
        lse = 4 * self.tokens * shape.heads // layout.tp
        yield Op("qkv", (), queries + 2 * keys, products=(queries, keys, keys))
        yield Op("positions", (queries, seen, seen), 0 if shape.positions else queries)
        if layout.cp > 1:
            turns = layout.cp  # each but the first has received keys and values
            scores = self._scores(4) * 3 if formats.ring_by_hand else 0
            saved = 2 * keys * (turns - 1) + (2 * queries + 4 * lse) * turns
            yield Op("ring", (saved,), scores, (), (queries,))
        elif formats.flash:
            copy = (queries,) if formats.copies_heads else ()
            yield Op("attention", (queries, lse, *copy), 0, kept_anyway=(queries, lse))
        else:
            scores = self._scores(formats.compute)
            mask = self._scores(1) if formats.dropout else 0
            kept = (scores, *((scores, mask) if formats.dropout else ()), queries)
            yield Op("attention", kept, scores, kept_anyway=(queries,))
        yield Op("out", (self.residual, *self._mask()), self.stream, products=(self.stream,))

    def _scores(self, nbytes: int) -> int:
        step, layout = self.training.step, self.training.layout
        pairs = (step.seq_len // layout.cp) ** 2
        return nbytes * step.rows * self.training.shape.heads // layout.tp * pairs

    def _mask(self) -> tuple[int, ...]:
        """Return the mask of dropout on the residual path, a byte an element."""
        size = self.norm_tokens * self.training.shape.dim
        return (size,) if self.training.formats.dropout else ()

    def _feed_forward(self, tokens: int) -> Iterator[Op]:
        shape, formats = self.training.shape, self.training.formats
        cut = 1 if shape.experts else self.training.layout.tp
        wide = formats.compute * tokens * shape.ffn // cut
        narrow = formats.compute * tokens * shape.dim
        if shape.gated:
            yield Op("gate up", (wide, wide), 0, products=(wide, wide))
            yield Op("silu", () if formats.compiled else (wide, wide), wide)
        else:
            yield Op("up", (wide,), 0, products=(wide,))
            yield Op("gelu", () if formats.compiled else (wide,), wide)
        yield Op("down", self._mask(), narrow, products=(narrow,))

    def _experts(self) -> Iterator[Op]:
        """Yield a mixture of experts whose tokens are spread evenly."""
        tokens = self.tokens * self.training.shape.chosen
        sent = self.training.formats.compute * tokens * self.training.shape.dim
        yield Op("dispatch", (sent, sent), sent)
        yield from self._feed_forward(tokens)
        yield Op("combine", (sent, sent), sent)


def kept(op: Op, mode: Recompute, position: int, *, compiled: bool) -> tuple[int, ...]:
    """Return the bytes of an operation that stay until backward.

    Args:
        op: The operation.
        mode: What is recomputed.
        position: How many matrix products of the layer came before it.
        compiled: Then the last product, which nothing in the layer needs, is not kept.
    """
    if mode == "none":
        return op.saved
    if mode == "full":
        return ()
    if mode == "attention":
        return op.kept_anyway if op.name == "attention" else op.saved
    products = op.products if not (compiled and op.name == "down") else ()
    if mode == "alternate":
        products = tuple(n for i, n in enumerate(products) if (position + i) % 2 == 0)
    return (*products, *op.kept_anyway)


def kept_of_block(ops: tuple[Op, ...], mode: Recompute, *, compiled: bool) -> list[tuple[int, ...]]:
    """Return for each operation what stays until backward."""
    found, position = [], 0
    for op in ops:
        found.append(kept(op, mode, position, compiled=compiled))
        position += len(op.products)
    return found
