"""The arithmetic and the memory traffic of one step of one rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from distrun.estimate.layout import Training
from distrun.estimate.units import Units, units_of
from distrun.estimate.work import Attention, Matmul, Phase

_DTYPES = {2: "bfloat16", 4: "float32", 8: "float64"}
_RECOMPUTED = {"none": (), "attention": (), "selective": (), "alternate": ("k", "out", "up")}
"""Mode -> products that backward runs again; full: all."""


class Product(NamedTuple):
    """A matrix product of forward: [m, k] x [k, n]."""

    name: str
    m: int
    n: int
    k: int


@dataclass(frozen=True)
class Compute:
    """The work of a rank of one stage."""

    training: Training
    stage: int = 0

    @property
    def _units(self) -> Units:
        return units_of(self.training, self.stage)

    @property
    def _tokens(self) -> int:
        return self.training.step.local_tokens(self.training.layout)

    def products(self) -> list[Product]:
        """Return the matrix products of one layer's forward."""
        shape, tp = self.training.shape, self.training.layout.tp
        m, d = self._tokens, shape.dim
        found = [
            Product("q", m, shape.queries // tp, d),
            Product("k", m, shape.keys // tp, d),
            Product("v", m, shape.keys // tp, d),
            Product("out", m, d, shape.queries // tp),
        ]
        cut, many, times = tp, m, 1
        if shape.experts:
            times = shape.experts // self.training.layout.ep
            cut, many = 1, max(1, m * shape.chosen * self.training.layout.ep // shape.experts)
            found.append(Product("router", m, shape.experts, d))
        wide = shape.ffn // cut
        ups = ("gate", "up") if shape.gated else ("up",)
        found += [Product(name, many, wide, d) for name in ups for _ in range(times)]
        found += [Product("down", many, d, wide)] * times
        return found

    def matmuls(self) -> tuple[Matmul, ...]:
        """Return all matrix products of a step; backward has two for each of forward."""
        totals: dict[tuple[int, int, int, Phase], int] = {}
        for product, layers in self._all_products():
            count = layers * self.training.step.accumulate
            forward = (product.m, product.n, product.k)
            inputs = (product.m, product.k, product.n)
            weights = (product.n, product.k, product.m)
            calls: list[tuple[tuple[int, int, int], Phase]] = [
                (forward, "forward"),
                (inputs, "backward"),
                (weights, "backward"),
            ]
            if self._again(product.name):
                calls.append((forward, "backward"))
            for (m, n, k), phase in calls:
                totals[m, n, k, phase] = totals.get((m, n, k, phase), 0) + count
        dtype = _DTYPES.get(self.training.formats.compute, "float32")
        found = (Matmul(m, n, k, count, dtype, phase) for (m, n, k, phase), count in totals.items())
        return (*found, *self._ring(dtype))

    @property
    def _by_hand(self) -> bool:
        return self.training.layout.cp > 1 and self.training.formats.ring_by_hand

    def _ring(self, dtype: str) -> Iterator[Matmul]:
        """Yield the products of attention that is written in them, over all turns.

        Forward has scores and values, backward the scores again, and two products for each.
        """
        shape, layout, step = self.training.shape, self.training.layout, self.training.step
        if not self._by_hand:
            return
        t, d = step.seq_len // layout.cp, shape.head_dim
        calls = self._units.layers * step.accumulate * layout.cp * step.rows * shape.heads
        exact = dtype if dtype == "float64" else "float32"
        again = 2 if step.recompute == "full" else 1
        yield Matmul(t, t, d, again * calls, exact, "forward")
        yield Matmul(t, d, t, again * calls, dtype, "forward")
        yield Matmul(t, t, d, calls, exact, "backward")
        yield Matmul(t, d, t, 2 * calls, exact, "backward")
        yield Matmul(t, t, d, calls, dtype, "backward")
        yield Matmul(t, d, t, calls, dtype, "backward")

    def _all_products(self) -> Iterator[tuple[Product, int]]:
        units, shape = self._units, self.training.shape
        for product in self.products():
            yield product, units.layers
        if units.is_last:
            width = shape.vocab // self.training.layout.tp
            yield Product("head", self._tokens, width, shape.dim), 1

    def _again(self, name: str) -> bool:
        mode = self.training.step.recompute
        return name != "head" if mode == "full" else name in _RECOMPUTED[mode]

    def attention(self) -> tuple[Attention, ...]:
        """Return the calls of attention; one that backward runs again counts as forward's."""
        shape, layout, step = self.training.shape, self.training.layout, self.training.step
        if self._by_hand:
            return ()
        calls = self._units.layers * step.accumulate
        turns = layout.cp  # of a ring; each skips what is in the future, half of it
        tokens = step.seq_len // layout.cp
        anew = 2 if step.recompute in ("full", "attention") else 1
        both: tuple[tuple[Phase, int], ...] = (("forward", anew), ("backward", 1))
        heads = shape.heads // layout.tp
        return tuple(
            Attention(
                step.rows,
                heads,
                tokens,
                tokens,
                shape.head_dim,
                True,
                calls * turns * times,
                phase,
            )
            for phase, times in both
        )
