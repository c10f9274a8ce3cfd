"""Ticks are round, and numbers are short."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrun.report import scale

FINITE = st.floats(-1e15, 1e15, allow_nan=False)


@given(st.lists(FINITE, min_size=1, max_size=5), st.booleans(), st.booleans())
def test_every_value_has_a_place_on_its_axis(values: list[float], log: bool, zero: bool) -> None:
    axis = scale.axis(values, may_be_log=log, from_zero=zero)
    for value in values:
        assert -1e-6 <= axis.at(value) <= 1 + 1e-6
    for tick in axis.ticks(5):
        assert math.isfinite(axis.at(tick))
    assert len(axis.ticks(5)) < 60


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (1.0, 30.0, [10.0, 20.0, 30.0]),
        (0.0, 100_000.0, [0.0, 25_000.0, 50_000.0, 75_000.0, 100_000.0]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert scale.exact_axis(low, high).ticks(4) == ticks


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1500.0, "1.5k"),
        (2e6, "2M"),
        (0.00012, "1.2e-4"),
        (-0.5, "-0.5"),
    ],
)
def test_a_tick_is_short(value: float, text: str) -> None:
    assert scale.tick(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0042, "4.2 ms"), (1.26, "1.3 s"), (187.0, "3 min 07 s"), (7380.0, "2 h 03 min")],
)
def test_a_time_has_a_unit_for_its_size(value: float, text: str) -> None:
    assert scale.seconds(value) == text
