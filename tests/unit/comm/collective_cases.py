"""What each case is made of: the inputs of every rank, and how results are compared.

A case is a function of the world that holds at any number of ranks. It knows the inputs of all
ranks, works the truth out of them with torch alone, and raises AssertionError where it is not so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from distrun.comm import CommUsageError, World

Case = Callable[[World], None]
DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32),
    *(torch.int64, torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2),
]
SHAPES = [(), (1,), (4,), (0,), (2, 3), (3, 0, 2), (2, 3, 4)]


class Pair(NamedTuple):
    """A tuple with names, as a tree of tensors."""

    left: Any
    right: Any


class Cases(dict[str, Case]):
    """Cases by name; decorate a function to add it."""

    def __call__(self, case: Case) -> Case:
        self[case.__name__] = case
        return case


def made(rank: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return what a rank gives: small integers, other ones on each rank."""
    count = int(torch.Size(shape).numel())
    numbers = (torch.arange(count) * (rank + 2) + 3 * rank) % 5
    if dtype == torch.bool:
        return (numbers > 1).reshape(shape)
    return numbers.reshape(shape).to(dtype)


def views(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors with the values of x, each in memory of another order."""
    yield "contiguous", x.clone()
    if x.ndim:
        wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)
        wide[..., ::2] = x
        yield "strided", wide[..., ::2]
        yield "offset", torch.cat([x[:1], x])[min(1, len(x)) :]
    if x.ndim > 1:
        yield "transposed", x.movedim(0, -1).contiguous().movedim(-1, 0)
        yield "permuted", x.flip(0).contiguous().flip(0).mT.contiguous().mT


def same(got: Any, want: Any, what: object = "") -> None:
    """Fail unless two tensors, or trees of them, are equal: NaN is, 0.0 and -0.0 are not."""
    if isinstance(want, Tensor):
        assert type(got) is Tensor, f"{what}: {got!r} is no tensor"
        assert got.dtype == want.dtype, f"{what}: {got.dtype}, not {want.dtype}"
        assert got.shape == want.shape, f"{what}: {list(got.shape)}, not {list(want.shape)}"
        assert repr(got.tolist()) == repr(want.tolist()), f"{what}: {got}, not {want}"
        return
    (parts, spec), (wanted, wanted_spec) = tree_flatten(got), tree_flatten(want)
    assert spec == wanted_spec, f"{what}: {spec}, not {wanted_spec}"
    for part, each in zip(parts, wanted, strict=True):
        if isinstance(each, Tensor):
            same(part, each, what)
        else:
            assert part == each, f"{what}: {part!r}, not {each!r}"


def close(got: Any, want: Tensor) -> None:
    """Fail unless two tensors are equal but for rounding; torch.testing is slow to import."""
    assert isinstance(got, Tensor)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert torch.allclose(got, want, rtol=4 * torch.finfo(want.dtype).eps, atol=0), f"{got}, {want}"


def refusal(call: Callable[[], object]) -> CommUsageError:
    """Return what a call is refused with; pytest.raises would have ranks load all of pytest."""
    try:
        call()
    except CommUsageError as error:
        return error
    raise AssertionError("it was not refused")
