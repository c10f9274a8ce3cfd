"""Which windows of the data a step takes: a pure function of (seed, step)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def rows_of_step(seed: int, step: int, batch_size: int, count: int) -> NDArray[np.int64]:
    """Return the windows of a step, of all ranks together: [batch_size] of 0 … count-1.

    Every window comes once an epoch, in another order each epoch, and none is kept in memory:
    the order of epoch e is i -> (a·i + b) mod count, with a coprime to count, drawn from
    (seed, e). So the place in the data is the step alone, at any number of ranks.
    """
    place = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs, index = np.divmod(place, count)
    rows = np.empty_like(place)
    for epoch in np.unique(epochs):
        draw = np.random.default_rng((seed, int(epoch)))
        factor = int(draw.integers(1, max(2, count)))
        while math.gcd(factor, count) != 1:
            factor += 1
        here = epochs == epoch
        # count < 2**31 keeps the product inside int64; above, Python's integers do it
        offset = int(draw.integers(count))
        rows[here] = [(factor * int(i) + offset) % count for i in index[here]]
    return rows
