"""A plot of fewer points shows the least and the greatest value of every part."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from distrun.report.decimate import decimated, means

VALUES = st.lists(st.floats(width=32), min_size=1, max_size=400)


@given(VALUES, st.integers(1, 20))
def test_extremes_and_ends_are_kept_in_order_and_what_is_not_finite_is_not(
    values: list[float], parts: int
) -> None:
    xs = [float(i) for i in range(len(values))]
    kept = decimated(xs, values, parts)
    finite = [i for i, value in enumerate(values) if math.isfinite(value)]
    assert kept == sorted(set(kept)) and len(kept) <= 4 * parts
    assert set(kept) <= set(finite)
    if finite:
        assert (kept[0], kept[-1]) == (finite[0], finite[-1])
        shown = [values[i] for i in kept]
        assert min(shown) == min(values[i] for i in finite)
        assert max(shown) == max(values[i] for i in finite)


def test_one_spike_in_a_million_steps_is_drawn() -> None:
    xs = [float(i) for i in range(100_000)]
    ys = [0.0] * 100_000
    ys[77_777] = 9.0
    assert 77_777 in decimated(xs, ys, 300)


def test_steps_at_one_place_are_one_part() -> None:
    assert len(decimated([5.0] * 1000, [float(i) for i in range(1000)], 10)) <= 40


def test_the_mean_of_each_part_is_drawn_where_points_are_left_out() -> None:
    xs = [float(i) for i in range(1000)]
    assert means(xs, xs, 10)[0] == (49.5, 49.5) and len(means(xs, xs, 10)) == 10
    assert means(xs[:40], xs[:40], 10) == []
