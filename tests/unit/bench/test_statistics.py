"""What is said of a row's times: order statistics, scatter, and whether to trust them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from distrun.bench.statistics import percentile, stats_of


@pytest.mark.parametrize(
    ("count", "percent", "value"),
    [
        (1, 95, 1),
        (5, 95, 5),
        (19, 95, 19),
        (20, 95, 19),
        (21, 95, 20),
        (40, 95, 38),
        (100, 95, 95),
        (100, 99, 99),
        (101, 99, 100),
        (200, 99, 198),
        (4, 50, 2),
        (5, 50, 3),
        (5, 0, 1),
        (5, 100, 5),
    ],
)
def test_a_percentile_is_a_time_that_was_measured_of_the_nearest_rank(
    count: int, percent: float, value: float
) -> None:
    assert percentile([float(i) for i in range(1, count + 1)], percent) == value


@pytest.mark.parametrize(("count", "p99"), [(1, None), (99, None), (100, 99.0), (1000, 990.0)])
def test_p99_is_told_only_from_100_iterations(count: int, p99: float | None) -> None:
    stats = stats_of([float(i) for i in range(1, count + 1)])
    assert (stats.p99_s, stats.iterations) == (p99, count)


def test_the_order_in_which_times_were_measured_does_not_matter() -> None:
    times = [float(i) for i in range(1, 21)]
    shuffled = random.Random(5).sample(times, len(times))
    assert stats_of(shuffled) == stats_of(times)
    stats = stats_of(shuffled)
    assert (stats.min_s, stats.p50_s, stats.p95_s, stats.max_s) == (1.0, 10.5, 19.0, 20.0)


@pytest.mark.parametrize(
    ("times", "mad", "cv"),
    [
        ([2.0], 0.0, 0.0),
        ([3.0, 3.0, 3.0], 0.0, 0.0),
        ([1.0, 3.0], 1.0, 0.5),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 1.0, 2**0.5 / 3),
        ([1.0, 2.0, 3.0, 4.0, 90.0], 1.0, 1226.0**0.5 / 20),  # one outlier moves cv, not mad
    ],
)
def test_scatter_is_told_as_mad_and_as_cv(times: list[float], mad: float, cv: float) -> None:
    stats = stats_of(times)
    assert stats.mad_s == mad
    assert stats.cv == pytest.approx(cv)


@pytest.mark.parametrize(
    ("cv", "max_s", "noisy"),
    [
        (0.0, 1.0, False),
        (0.05, 1.5, False),
        (0.0501, 1.0, True),
        (0.0, 1.501, True),
        (0.0501, 1.501, True),
    ],
)
def test_a_row_is_noisy_above_5_percent_cv_or_a_maximum_above_1_5_medians(
    cv: float, max_s: float, noisy: bool
) -> None:
    assert replace(stats_of([1.0]), cv=cv, max_s=max_s).is_noisy is noisy


def test_one_late_iteration_of_a_thousand_makes_a_row_noisy() -> None:
    stats = stats_of([1.0] * 999 + [1.6])
    assert stats.cv < 0.05
    assert stats.is_noisy
    assert not stats_of([1.0] * 999 + [1.4]).is_noisy
