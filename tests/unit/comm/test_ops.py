"""How each reduction travels: encoded, combined as a backend would, decoded: the plain truth."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from distrun.comm.errors import CommUsageError
from distrun.comm.ops import ALIASES, OPS, encoding, op_name

ON_THE_WIRE = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int8, torch.uint8),
}
"""What gloo and NCCL both add up."""
# Comparing drops NaN from one side and keeps it from the other: as gloo does.
WIRE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": operator.add,
    "mean": operator.add,
    "prod": operator.mul,
    "max": lambda a, b: torch.where(a > b, a, b),
    "min": lambda a, b: torch.where(a < b, a, b),
    "band": operator.and_,
    "bor": operator.or_,
    "bxor": operator.xor,
}
PLAIN: dict[str, Callable[[int, int], int]] = {
    "sum": operator.add,
    "prod": operator.mul,
    "max": max,
    "min": min,
    "band": operator.and_,
    "bor": operator.or_,
    "bxor": operator.xor,
}
SIGNED = [torch.int8, torch.int16, torch.int32, torch.int64]
UNSIGNED = [torch.uint8, torch.uint16, torch.uint32, torch.uint64]
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
COMPLEX = [torch.complex64, torch.complex128]
FLOAT8 = [torch.float8_e4m3fn, torch.float8_e5m2]


def bits(x: Tensor) -> Tensor:
    return x.reshape(-1).view(torch.uint8)


def travelled(op: str, inputs: Sequence[Tensor]) -> Tensor:
    """Return what a backend makes of the inputs of several ranks."""
    how = encoding(op, inputs[0].dtype)
    before = [x.clone() for x in inputs]
    sent = [x.clone() if how.encode is None else how.encode(x).clone() for x in inputs]
    for x, old in zip(inputs, before, strict=True):
        assert torch.equal(bits(x), bits(old)), "encode changed its input"
    assert sent[0].dtype in ON_THE_WIRE
    whole = functools.reduce(WIRE[how.op], sent)
    if how.op == "mean":
        whole = whole / len(inputs)
    found = whole if how.decode is None else how.decode(whole)
    assert found.dtype == inputs[0].dtype
    assert found.shape == inputs[0].shape
    return found


def ranks_of(values: Sequence[object], dtype: torch.dtype, world_size: int) -> list[Tensor]:
    """Return a tensor a rank: together they hold every combination of the values."""
    columns = zip(*itertools.product(values, repeat=world_size), strict=True)
    return [torch.tensor(column, dtype=dtype) for column in columns]


# --- integers -------------------------------------------------------------------------


def wrapped(value: int, dtype: torch.dtype) -> int:
    """Return an integer as a register of this dtype holds it."""
    limits = torch.iinfo(dtype)
    return (value - limits.min) % (1 << limits.bits) + limits.min


def integers(dtype: torch.dtype) -> list[int]:
    """Return both ends, the middle of the unsigned, and what is near."""
    limits = torch.iinfo(dtype)
    half = 1 << (limits.bits - 1)
    near = {0, 1, 2, 3, 7, -1, -2, -100, half - 1, half, half + 1, half // 2 + 5}
    ends = {limits.min, limits.min + 1, limits.max - 1, limits.max}
    return sorted({wrapped(v, dtype) for v in near | ends})


@pytest.mark.parametrize("dtype", [*SIGNED, *UNSIGNED], ids=str)
@pytest.mark.parametrize("op", PLAIN)
def test_integers_are_exact_and_wrap_as_the_dtype_does(op: str, dtype: torch.dtype) -> None:
    inputs = ranks_of(integers(dtype), dtype, 2)
    rows = zip(*(x.tolist() for x in inputs), strict=True)
    truth = [wrapped(PLAIN[op](a, b), dtype) for a, b in rows]
    assert travelled(op, inputs).tolist() == truth


@pytest.mark.parametrize("dtype", [torch.int16, *UNSIGNED], ids=str)
@pytest.mark.parametrize("op", ["sum", "prod"])
def test_many_ranks_at_the_upper_end_still_wrap(op: str, dtype: torch.dtype) -> None:
    top = torch.iinfo(dtype).max
    truth = wrapped(5 * top if op == "sum" else top**5, dtype)
    assert travelled(op, [torch.tensor([top], dtype=dtype)] * 5).tolist() == [truth]


@pytest.mark.parametrize("op", ["max", "min"])
def test_above_2_to_the_63_a_uint64_is_large_not_negative(op: str) -> None:
    low, high = 5, (1 << 63) + 9
    inputs = [torch.tensor([v], dtype=torch.uint64) for v in (low, high)]
    assert travelled(op, inputs).tolist() == [high if op == "max" else low]


# --- floats ---------------------------------------------------------------------------


def floats(dtype: torch.dtype) -> list[float]:
    limits = torch.finfo(dtype)
    finite = [1.0, -1.0, 1.5, limits.max, limits.min, limits.tiny, -limits.tiny]
    subnormal = [limits.smallest_normal * limits.eps, -limits.smallest_normal * limits.eps]
    return [0.0, -0.0, math.inf, -math.inf, math.nan, *finite, *subnormal]


def extreme(op: str, values: Sequence[float]) -> float:
    """Return the max or min, where NaN wins and -0.0 is below 0.0."""
    if any(math.isnan(v) for v in values):
        return math.nan
    pick = max if op == "max" else min
    return pick(values, key=lambda v: (v, math.copysign(1, v)))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_max_and_min_keep_nan_infinities_zeros_signs_and_subnormals(
    op: str, dtype: torch.dtype, world_size: int
) -> None:
    inputs = ranks_of(floats(dtype), dtype, world_size)
    assert any(v != 0 and abs(v) < torch.finfo(dtype).tiny for v in inputs[0].tolist())
    found = travelled(op, inputs).tolist()
    truth = [extreme(op, row) for row in zip(*(x.tolist() for x in inputs), strict=True)]
    assert list(map(repr, found)) == list(map(repr, truth))  # repr tells -0.0 and NaN


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_nan_wins_whatever_its_sign_and_payload(dtype: torch.dtype) -> None:
    integer = {8: torch.int64, 4: torch.int32, 2: torch.int16}[dtype.itemsize]
    quiet = torch.tensor([math.nan], dtype=dtype).view(integer)
    negative = quiet ^ torch.iinfo(integer).min
    for pattern in (quiet, quiet + 1, negative, negative + 1):
        nan = pattern.view(dtype)
        for op, other in itertools.product(["max", "min"], [math.inf, -math.inf, 0.0]):
            pair = [nan, torch.tensor([other], dtype=dtype)]
            assert travelled(op, pair).isnan().all()
            assert travelled(op, pair[::-1]).isnan().all()


@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX], ids=str)
@pytest.mark.parametrize("op", ["sum", "mean"])
def test_sums_and_means_are_those_of_the_values(op: str, dtype: torch.dtype) -> None:
    inputs = ranks_of([0, 1, -2.5, 4] + ([1j, 2 - 3j] if dtype.is_complex else []), dtype, 2)
    truth = inputs[0] + inputs[1]
    torch.testing.assert_close(travelled(op, inputs), truth / 2 if op == "mean" else truth)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_products_are_those_of_the_values(dtype: torch.dtype) -> None:
    inputs = ranks_of([0.5, -2.0, 3.0, 0.0], dtype, 3)
    assert torch.equal(travelled("prod", inputs), inputs[0] * inputs[1] * inputs[2])


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.uint64, torch.bool, torch.complex64])
def test_a_shape_comes_back_as_it_went(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.ones(shape, dtype=dtype)
    ops = ["sum"] if dtype.is_complex else ["sum", "max", "min"]
    for op in ops:
        assert torch.equal(travelled(op, [x]), x)


# --- bool -----------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("ops", "truth"),
    [
        (("sum", "max", "bor"), any),
        (("prod", "min", "band"), all),
        (("bxor",), lambda row: sum(row) % 2 == 1),
    ],
    ids=["or", "and", "xor"],
)
def test_a_bool_stays_true_or_false(
    ops: Sequence[str], truth: Callable[[Sequence[bool]], bool], world_size: int
) -> None:
    inputs = ranks_of([False, True], torch.bool, world_size)
    wanted = [truth(row) for row in zip(*(x.tolist() for x in inputs), strict=True)]
    for op in ops:
        found = travelled(op, inputs)
        assert found.tolist() == wanted
        assert set(bits(found).tolist()) <= {0, 1}, "a bool that holds 2 is broken"


# --- names and refusals ---------------------------------------------------------------


def test_every_op_has_one_name_and_some_an_alias() -> None:
    assert [op_name(op) for op in OPS] == list(OPS)
    assert (op_name("avg"), op_name("product")) == ("mean", "prod")
    assert {op_name(op) for op in ALIASES if not isinstance(op, str)} == set(OPS)
    assert op_name(torch.distributed.ReduceOp.SUM) == "sum"
    assert encoding("avg", torch.float32).op == "mean"


BITS = "for the bits of a float, pass x.view(torch.int32)"
NO_ORDER = "complex numbers have no order: only sum and mean work"
NO_MEAN = 'the mean of integers is not an integer: pass x.float(), or use op="sum" and divide'
TOO_COARSE = "too coarse for sums: pass x.float()"
REFUSED = [
    *(("mean", dtype, NO_MEAN) for dtype in [*SIGNED, *UNSIGNED]),
    ("mean", torch.bool, "convert it first: x.float()"),
    *((op, dtype, BITS) for op in ("band", "bor", "bxor") for dtype in [*FLOATS, *FLOAT8]),
    *((op, d, NO_ORDER) for op in OPS if op not in ("sum", "mean") for d in COMPLEX),
    *((op, d, TOO_COARSE) for op in ("sum", "mean", "prod", "max", "min") for d in FLOAT8),
]


@pytest.mark.parametrize(("op", "dtype", "cure"), REFUSED, ids=lambda v: str(v)[:16])
def test_what_means_nothing_for_a_dtype_is_refused_with_a_cure(
    op: str, dtype: torch.dtype, cure: str
) -> None:
    with pytest.raises(CommUsageError) as refused:
        encoding(op, dtype)
    assert refused.value.message == f'op="{op}" of {dtype} is not defined'
    assert refused.value.hint == cure
    assert str(refused.value) == f"{refused.value.message}\n  hint: {cure}"


ALL_OPS = "one of: band, bor, bxor, max, mean, min, prod, sum"


@pytest.mark.parametrize(
    ("op", "hint"),
    [
        ("summ", "did you mean 'sum'?"),
        ("SUM", "did you mean 'sum'?"),
        ("", "one of: band, bor, bxor, max, mean, min, prod, sum"),
        ("means", "did you mean 'mean'?"),
        (None, ALL_OPS),
        (3, ALL_OPS),
        (["sum"], ALL_OPS),
    ],
    ids=repr,
)
def test_an_unknown_op_is_refused_with_the_ones_there_are(op: object, hint: str) -> None:
    with pytest.raises(CommUsageError) as refused:
        encoding(op, torch.float32)
    assert refused.value.message == f"op={op!r} is not a reduction"
    assert refused.value.hint == hint
