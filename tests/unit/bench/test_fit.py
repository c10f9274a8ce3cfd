"""The model T = alpha + S / beta: found where there is one, and None where there is none."""

from __future__ import annotations

import random

import numpy as np
import pytest

from distrun.bench.fit import fit

SIZES = [8 << (2 * i) for i in range(12)]  # 8 B to 32 MiB


def line(alpha_s: float, bytes_per_s: float) -> list[float]:
    return [alpha_s + size / bytes_per_s for size in SIZES]


@pytest.mark.parametrize("alpha_s", [1e-6, 20e-6, 5e-3])
@pytest.mark.parametrize("bytes_per_s", [1e7, 3e9, 4e11])
def test_an_exact_line_is_recovered(alpha_s: float, bytes_per_s: float) -> None:
    found = fit(SIZES, line(alpha_s, bytes_per_s))
    assert found is not None
    assert found.alpha_s == pytest.approx(alpha_s, rel=1e-5)
    assert found.bytes_per_s == pytest.approx(bytes_per_s, rel=1e-5)
    assert found.half_nbytes == pytest.approx(alpha_s * bytes_per_s, rel=1e-5)
    assert found.error < 1e-6


def test_at_half_of_the_bandwidth_is_the_size_that_it_names() -> None:
    found = fit(SIZES, line(20e-6, 3e9))
    assert found is not None
    size = found.half_nbytes
    assert size / found.time_s(size) == pytest.approx(found.bytes_per_s / 2)
    assert found.time_s(0) == found.alpha_s


def test_noise_moves_the_model_little_and_is_told_as_its_error() -> None:
    noise = random.Random(1)
    times = [t * noise.uniform(0.9, 1.1) for t in line(20e-6, 3e9)]
    found = fit(SIZES, times)
    assert found is not None
    assert found.alpha_s == pytest.approx(20e-6, rel=0.1)
    assert found.bytes_per_s == pytest.approx(3e9, rel=0.1)
    assert 0.01 < found.error < 0.1


def test_a_large_size_does_not_drown_the_small_ones() -> None:
    times = line(20e-6, 3e9)
    times[-1] *= 1.3
    found = fit(SIZES, times)
    assert found is not None
    assert found.alpha_s == pytest.approx(20e-6, rel=0.1)
    _, plain_alpha = np.polyfit(SIZES, times, 1)  # what absolute least squares makes of it
    assert abs(plain_alpha / 20e-6 - 1) > 1


def test_where_no_start_up_time_is_seen_there_is_none_and_none_below_zero() -> None:
    found = fit([1, 2, 4], [1.0, 2.5, 6.0])
    assert found is not None
    assert found.alpha_s == 0
    assert found.half_nbytes == 0
    assert 0.6 < found.bytes_per_s < 1


@pytest.mark.parametrize(
    ("sizes", "times"),
    [
        ([], []),
        ([8], [1.0]),
        ([8, 16], [1.0, 2.0]),
        ([8, 16, 16], [1.0, 2.0, 2.0]),  # two sizes, one of them twice
        ([8, 16, 32], [3.0, 2.0, 1.0]),
        ([8, 16, 32, 64], [1.0, 0.9, 0.8, 0.7]),
        ([8, 16, 32], [2.0, 2.0, 2.0]),
    ],
)
def test_too_few_sizes_or_times_that_do_not_grow_have_no_model(
    sizes: list[int], times: list[float]
) -> None:
    assert fit(sizes, times) is None
