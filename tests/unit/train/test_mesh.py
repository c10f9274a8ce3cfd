"""Sizes of a mesh fit the world, or the nearest that would are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from distrun.train.config import ConfigError
from distrun.train.mesh import require_divides, sizes


@pytest.mark.parametrize(
    ("world_size", "axes", "expected"),
    [
        (1, {"data": -1}, {"data": 1}),
        (8, {"pp": 2, "shard": -1, "tp": 2}, {"pp": 2, "shard": 2, "tp": 2}),
        (6, {"data": 3, "tp": 2}, {"data": 3, "tp": 2}),
        (4, {"data": -1, "cp": 4}, {"data": 1, "cp": 4}),
    ],
)
def test_the_free_axis_takes_the_rest(
    world_size: int, axes: dict[str, int], expected: dict[str, int]
) -> None:
    found = sizes(world_size, **axes)
    assert found == expected
    assert list(found) == list(axes)  # the order of the axes is that of the ranks


@pytest.mark.parametrize(
    ("world_size", "axes", "said"),
    [
        (3, {"pp": 2, "data": -1}, "pp 2 needs a multiple of 2 ranks, such as 4, not 3"),
        (1, {"tp": 2, "data": -1}, "tp 2 needs a multiple of 2 ranks, such as 2, not 1"),
        (2, {"pp": 2, "tp": 2}, "pp 2 x tp 2 needs 4 ranks, not 2"),
        (2, {"data": 1}, "data 1 needs 1 rank, not 2"),
    ],
)
def test_a_world_that_does_not_fit_is_refused(
    world_size: int, axes: dict[str, int], said: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        sizes(world_size, **axes)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("what", "value", "count", "by", "would"),
    [
        ("--batch-size", 16, 3, "micro-batches", "--batch-size 15 or 18 would"),
        ("--batch-size", 2, 3, "ranks", "--batch-size 3 would"),
        ("heads", 4, 3, "tp ranks", "2 or 4 tp ranks would"),
        ("layers", 4, 7, "stages", "2 or 4 stages would"),
        ("a micro-batch of", 16, 3, "ranks", "2 or 4 ranks would"),
    ],
)
def test_what_does_not_divide_names_what_would(
    what: str, value: int, count: int, by: str, would: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        require_divides(what, value, count, by)
    assert str(refused.value) == f"{what} {value} does not divide among {count} {by}: {would}"


@given(value=some.integers(1, 500), count=some.integers(1, 50))
def test_what_divides_is_fine_and_nothing_else_is(value: int, count: int) -> None:
    if value % count == 0:
        require_divides("heads", value, count, "ranks")
    else:
        with pytest.raises(ConfigError):
            require_divides("heads", value, count, "ranks")
