"""What a rank holds of each unit of the model: a layer, or the ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from distrun.estimate.layout import Layout, Training
from distrun.estimate.shape import Weight


@dataclass(frozen=True)
class Unit:
    """Parameters that are gathered, or computed with, together.

    Attributes:
        name: A layer ("block"), or an end.
        count: Elements on this rank after tensor and expert parallelism, unsharded.
        padded: The same as FSDP gathers it: each parameter's dim 0 a multiple of the shard size.
        own: Elements of this rank's shard.
        products: Elements of `count` that are matrices of products, which autocast casts.
        experts: Elements of `count` that belong to experts.
        tensors: Elements of each parameter on this rank, in the order of their definition.
    """

    name: str
    count: int
    padded: int
    own: int
    products: int
    experts: int
    tensors: tuple[int, ...]


def unit(name: str, weights: Iterable[Weight], layout: Layout, *, embedding_cut: bool) -> Unit:
    """Return a unit; `embedding_cut` says whether tensor parallelism divides the embedding."""
    n = layout.shard if layout.fully_sharded else 1
    count = padded = products = experts = 0
    tensors = []
    for weight in weights:
        whole = weight.name == "embed" and not embedding_cut
        rows, rest = weight.on_rank(1 if whole else layout.tp, layout.ep)
        count += rows * rest
        padded += -(-rows // n) * n * rest
        products += rows * rest if weight.multiplies and rest > 1 else 0
        experts += rows * rest if weight.expert else 0
        tensors.append(rows * rest)
    return Unit(name, count, padded, padded // n, products, experts, tuple(tensors))


@dataclass(frozen=True)
class Units:
    """A rank's part of the model: a stage of the pipeline, or all of it.

    Attributes:
        before: The embedding, if it is a unit of its own.
        block: One layer.
        layers: How many.
        root: What is left: gathered first and last.
        is_first: Whether the embedding is on this rank.
        is_last: Whether the head is.
    """

    before: Unit | None
    block: Unit
    layers: int
    root: Unit
    is_first: bool
    is_last: bool

    @cached_property
    def all(self) -> list[Unit]:
        """Every unit, in the order of forward."""
        ends = [self.before] if self.before else []
        return [*ends, *[self.block] * self.layers, self.root]

    @property
    def last_place(self) -> int:
        """The place of the root in `all`."""
        return self.layers + (self.before is not None)

    @property
    def layer_places(self) -> range:
        """The places of the layers in `all`."""
        first = int(self.before is not None)
        return range(first, first + self.layers)

    @property
    def tensors(self) -> list[int]:
        """Elements of each parameter, in the order of units."""
        return [count for unit in self.all for count in unit.tensors]

    def total(self, field: str) -> int:
        """Return the sum of a field over all units."""
        return sum(getattr(unit, field) for unit in self.all)


def units_of(training: Training, stage: int) -> Units:
    """Return the units on a rank of a stage of the pipeline."""
    shape, layout, formats = training.shape, training.layout, training.formats
    is_first, is_last = stage == 0, stage == layout.pp - 1
    embedding = shape.embedding() if is_first else ()
    end = shape.end() if is_last else ()
    if is_last and not is_first and shape.tied:  # the copy of the last stage
        end = (*end, *shape.embedding()[:1])
    apart = formats.embedding_apart and bool(embedding) and not shape.tied
    cut = formats.embedding_cut

    def made(name: str, weights: Iterable[Weight]) -> Unit:
        return unit(name, weights, layout, embedding_cut=cut)

    return Units(
        made("embedding", embedding) if apart else None,
        made("block", shape.block()),
        _layers_of(training, stage),
        made("root", (*(() if apart else embedding), *end)),
        is_first,
        is_last,
    )


def _layers_of(training: Training, stage: int) -> int:
    """Return the layers of a stage: equally many, or of equal cost.

    By cost a stage takes layers until it exceeds its share (nanotron, `get_block_compute_costs`).
    """
    shape, pp = training.shape, training.layout.pp
    if not training.formats.by_cost:
        return shape.layers // pp
    one = 4 * shape.dim * shape.queries + 3 * shape.ffn * shape.dim
    whole = shape.layers * one + shape.vocab * shape.dim
    ends = [min(shape.layers, whole * n // pp // one + 1) for n in range(1, pp)]
    begins = [0, *ends]
    return [*ends, shape.layers][stage] - begins[stage]
