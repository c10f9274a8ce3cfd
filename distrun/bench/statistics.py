"""Order statistics of a row's times, and whether they are too noisy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NOISY_CV = 0.05
NOISY_MAX_TO_P50 = 1.5
P99_NEEDS = 100


@dataclass(frozen=True)
class Stats:
    """Times of one row in seconds, over its iterations, each on its slowest rank."""

    iterations: int
    min_s: float
    p50_s: float
    p95_s: float
    p99_s: float | None
    """None below 100 iterations: it would be the maximum."""
    max_s: float
    mad_s: float
    """Median absolute deviation from p50."""
    cv: float
    """Standard deviation / mean."""

    @property
    def is_noisy(self) -> bool:
        """Return whether the times scatter too much to be judged.

        The thresholds are those of nccl-tests' own analysis
        (https://github.com/NVIDIA/nccl-tests, tools/analyze_perf_json.py).
        """
        return self.cv > NOISY_CV or self.max_s > NOISY_MAX_TO_P50 * self.p50_s


def stats_of(times_s: Sequence[float]) -> Stats:
    """Return the statistics of at least one time."""
    ordered = sorted(times_s)
    p50 = statistics.median(ordered)
    mean = statistics.fmean(ordered)
    return Stats(
        iterations=len(ordered),
        min_s=ordered[0],
        p50_s=p50,
        p95_s=percentile(ordered, 95),
        p99_s=percentile(ordered, 99) if len(ordered) >= P99_NEEDS else None,
        max_s=ordered[-1],
        mad_s=statistics.median(abs(t - p50) for t in ordered),
        cv=statistics.pstdev(ordered) / mean if mean else 0.0,
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of them do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
