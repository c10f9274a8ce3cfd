"""Fits the model T = alpha + S / beta of an op: a start-up time and a bandwidth.

R. W. Hockney, "The communication challenge for MPP", Parallel Computing 20 (1994). The fit uses the
fastest time of each size, because the rest is noise, and least squares of the relative errors, so
that small sizes count as much as large ones.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

MIN_SIZES = 3


@dataclass(frozen=True)
class Fit:
    """The model of one op."""

    alpha_s: float
    """Time of an empty message."""
    bytes_per_s: float
    """Bandwidth of an infinitely large message: algbw, not busbw."""
    half_nbytes: float
    """n½: the size that reaches half of that bandwidth, alpha · beta."""
    error: float
    """Median of |model - measured| / measured."""

    def time_s(self, nbytes: float) -> float:
        """Return the time that the model predicts for a size."""
        return self.alpha_s + nbytes / self.bytes_per_s


def fit(sizes: Sequence[int], times_s: Sequence[float]) -> Fit | None:
    """Fit the model; return None with too few sizes, or if times do not grow.

    Args:
        sizes: Sizes in bytes, without repetition.
        times_s: The fastest time of each.
    """
    if len(set(sizes)) < MIN_SIZES:
        return None
    # Minimise Σ ((a + b S) / T - 1)²: linear in a and b, with u = 1/T and v = S/T.
    uu = uv = vv = u1 = v1 = 0.0
    for size, time_s in zip(sizes, times_s, strict=True):
        u, v = 1 / time_s, size / time_s
        uu, uv, vv, u1, v1 = uu + u * u, uv + u * v, vv + v * v, u1 + u, v1 + v
    determinant = uu * vv - uv * uv
    if determinant <= 0:
        return None
    a, b = (u1 * vv - v1 * uv) / determinant, (v1 * uu - u1 * uv) / determinant
    if b <= 0:
        return None
    if a < 0:  # the start-up time is too small to measure: fit through the origin
        a, b = 0.0, v1 / vv
    errors = [abs((a + b * s) / t - 1) for s, t in zip(sizes, times_s, strict=True)]
    return Fit(a, 1 / b, a / b, statistics.median(errors))
