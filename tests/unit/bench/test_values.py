"""Inputs of the check: whatever the order of a reduction, its result is the one foretold."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import combinations

import pytest
import torch
from torch import Tensor

from distrun.bench.values import moved, reduced, summand, tolerance
from distrun.spec.bench import ITEM_NBYTES, REDOPS

CPU = torch.device("cpu")
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in ITEM_NBYTES}
RANKS = (2, 3, 8, 64, 600)
COUNT = 211
STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "mean": torch.add,
    "prod": torch.mul,
    "max": torch.maximum,
    "min": torch.minimum,
}
CASES = [
    (dtype, redop)
    for dtype in DTYPES
    for redop in REDOPS
    if redop != "mean" or DTYPES[dtype].is_floating_point
]


def one_after_another(step: Callable[[Tensor, Tensor], Tensor], parts: list[Tensor]) -> Tensor:
    return reduce(step, parts)


def backwards(step: Callable[[Tensor, Tensor], Tensor], parts: list[Tensor]) -> Tensor:
    return reduce(step, parts[::-1])


def from_the_middle(step: Callable[[Tensor, Tensor], Tensor], parts: list[Tensor]) -> Tensor:
    middle = len(parts) // 2
    return reduce(step, parts[middle:] + parts[:middle])


def as_a_tree(step: Callable[[Tensor, Tensor], Tensor], parts: list[Tensor]) -> Tensor:
    while len(parts) > 1:
        parts = [reduce(step, parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return parts[0]


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize(("dtype", "redop"), CASES)
@pytest.mark.parametrize("order", [one_after_another, backwards, from_the_middle, as_a_tree])
def test_a_reduction_done_in_the_dtype_is_exactly_what_is_foretold(
    order: Callable[..., Tensor], dtype: str, redop: str, n: int
) -> None:
    parts = [summand(COUNT, rank, n, DTYPES[dtype], redop, CPU) for rank in range(n)]
    whole = order(STEPS[redop], parts)
    foretold = reduced(COUNT, n, DTYPES[dtype], redop, CPU)
    assert foretold.dtype == whole.dtype == DTYPES[dtype]
    if redop != "mean":
        assert torch.equal(whole, foretold)
    elif n in (2, 8, 64):  # a power of two divides without rounding
        assert torch.equal(whole / n, foretold)
        assert torch.equal(order(STEPS[redop], [part / n for part in parts]), foretold)
    else:
        allowed = tolerance(DTYPES[dtype], redop, n) * foretold.abs()
        assert ((whole / n - foretold).abs() <= allowed).all()
        rounded = order(STEPS[redop], [part / n for part in parts])
        assert ((rounded - foretold).abs() <= allowed).all()


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_sum_leaves_what_the_dtype_holds_exactly(dtype: str, n: int) -> None:
    parts = [summand(COUNT, rank, n, DTYPES[dtype], "sum", CPU).long() for rank in range(n)]
    whole = torch.stack(parts).sum(0)
    assert torch.equal(whole, reduced(COUNT, n, DTYPES[dtype], "sum", CPU).long())


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize(("dtype", "redop"), CASES)
def test_what_a_rank_gives_is_not_the_result(dtype: str, redop: str, n: int) -> None:
    foretold = reduced(COUNT, n, DTYPES[dtype], redop, CPU)
    for rank in range(n):
        assert not torch.equal(summand(COUNT, rank, n, DTYPES[dtype], redop, CPU), foretold)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_ranks_give_to_be_moved_differs_from_rank_to_rank_and_place_to_place(
    dtype: str,
) -> None:
    letters = [moved(COUNT, rank, DTYPES[dtype], CPU) for rank in range(64)]
    for one, other in combinations(letters, 2):
        assert (one != other).all()
    for given in letters:
        assert given.dtype == DTYPES[dtype]
        assert (given[1:] != given[:-1]).all()


@pytest.mark.parametrize(("dtype", "redop"), CASES)
def test_only_a_mean_of_floats_may_be_rounded(dtype: str, redop: str) -> None:
    eps = {"float64": 2**-51, "float32": 2**-22, "float16": 2**-9, "bfloat16": 2**-6}
    assert tolerance(DTYPES[dtype], redop, 2) == (eps[dtype] if redop == "mean" else 0)
