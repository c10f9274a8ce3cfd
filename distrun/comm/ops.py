"""Reductions: the c10d op and the dtype that each is sent in, and which are refused.

gloo drops NaN in MAX and MIN, lacks 16-bit and large unsigned integers, and lets a bool become 2.
So such values are sent as integers that compare, add and wrap in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.distributed import ReduceOp

from distrun.comm.errors import CommUsageError
from distrun.errors import did_you_mean

ALIASES: dict[object, str] = {
    "avg": "mean",
    "product": "prod",
    ReduceOp.SUM: "sum",
    ReduceOp.AVG: "mean",
    ReduceOp.PRODUCT: "prod",
    ReduceOp.MAX: "max",
    ReduceOp.MIN: "min",
    ReduceOp.BAND: "band",
    ReduceOp.BOR: "bor",
    ReduceOp.BXOR: "bxor",
}
OPS = ("sum", "mean", "prod", "max", "min", "band", "bor", "bxor")
RedOpType = type(ReduceOp.SUM)
_BITWISE = {"band", "bor", "bxor"}
_PLAIN_INTEGERS = {torch.int8, torch.uint8, torch.int32, torch.int64}
_WIDER = {torch.int16: torch.int32, torch.uint16: torch.int32, torch.uint32: torch.int64}
_KEYS = {
    torch.float64: (torch.float64, torch.int64),
    torch.float32: (torch.float32, torch.int32),
    torch.float16: (torch.float32, torch.int32),
    torch.bfloat16: (torch.float32, torch.int32),
}
"""A float's dtype -> the dtype it is widened to, and the integers of that width."""

Convert = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Encoding:
    """How one reduction is sent: `decode(reduce(encode(x), op))`."""

    op: str
    encode: Convert | None = None
    """Makes a new tensor to send, or a view; None: the tensor is sent as it is."""
    decode: Convert | None = None


def op_name(op: object) -> str:
    """Return the canonical name of a reduction.

    Raises:
        CommUsageError: There is no such reduction.
    """
    if isinstance(op, str | RedOpType):  # whose members compare equal to 0, 1, …
        name = ALIASES.get(op, op)
        if isinstance(name, str) and name in OPS:
            return name
    raise _no_op(op)


def _no_op(op: object) -> CommUsageError:
    hint = did_you_mean(op.lower() if isinstance(op, str) else "", OPS)
    return CommUsageError(f"op={op!r} is not a reduction", hint)


def encoding(op: object, dtype: torch.dtype) -> Encoding:
    """Return how a reduction of a dtype is sent.

    Args:
        op: A name of `OPS`, or one of `ALIASES`.
        dtype: Of the tensor, before it is encoded.

    Raises:
        CommUsageError: The reduction is not defined for this dtype.
    """
    try:
        return _encoding(op, dtype)
    except TypeError:  # it is not hashable
        raise _no_op(op) from None


@lru_cache(maxsize=None, typed=True)
def _encoding(op: object, dtype: torch.dtype) -> Encoding:
    name = op_name(op)
    if dtype == torch.bool:
        return _bool(name)
    if dtype.is_complex:
        if name not in ("sum", "mean"):
            raise _refusal(name, dtype, "complex numbers have no order: only sum and mean work")
        return Encoding(name, torch.view_as_real, _as_complex)
    if dtype.is_floating_point:
        return _float(name, dtype)
    return _integer(name, dtype)


def _bool(name: str) -> Encoding:
    if name == "mean":
        raise _refusal(name, torch.bool, "convert it first: x.float()")
    if name == "bxor":
        return Encoding("sum", lambda x: x.to(torch.int32), lambda x: x.bitwise_and_(1).bool())
    any_is_enough = name in ("sum", "max", "bor")
    return Encoding("max" if any_is_enough else "min", _as_bytes, lambda x: x.view(torch.bool))


def _as_complex(x: Tensor) -> Tensor:
    # in a shared buffer it may begin at an offset that complex numbers do not allow
    return torch.view_as_complex(x.clone() if x.storage_offset() % 2 else x)


def _as_bytes(x: Tensor) -> Tensor:
    return x.view(torch.uint8)


def _float(name: str, dtype: torch.dtype) -> Encoding:
    if name in _BITWISE:
        raise _refusal(name, dtype, "for the bits of a float, pass x.view(torch.int32)")
    if dtype not in _KEYS:
        raise _refusal(name, dtype, "too coarse for sums: pass x.float()")
    if name not in ("max", "min"):
        return Encoding(name)
    wide, integer = _KEYS[dtype]
    return Encoding(
        name,
        lambda x: _order_key(x.to(wide), integer, name),
        lambda key: _from_order_key(key, wide).to(dtype),
    )


def _order_key(x: Tensor, integer: torch.dtype, name: str) -> Tensor:
    """Map floats to integers of the same order, with NaN beyond the end that the op selects.

    The bits of IEEE 754 floats, read as integers, are in order, except that negative values are in
    reverse order.
    """
    limits = torch.iinfo(integer)
    bits = x.view(integer)
    key = torch.where(bits < 0, bits ^ limits.max, bits)
    return torch.where(x.isnan(), limits.max if name == "max" else limits.min, key)


def _from_order_key(key: Tensor, wide: torch.dtype) -> Tensor:
    limits = torch.iinfo(key.dtype)
    return torch.where(key < 0, key ^ limits.max, key).view(wide)


def _integer(name: str, dtype: torch.dtype) -> Encoding:
    if name == "mean":
        raise _refusal(
            name,
            dtype,
            'the mean of integers is not an integer: pass x.float(), or use op="sum" and divide',
        )
    if dtype in _PLAIN_INTEGERS:
        return Encoding(name)
    if dtype in _WIDER:
        wide = _WIDER[dtype]
        return Encoding(name, lambda x: x.to(wide), lambda x: x.to(dtype))
    if dtype != torch.uint64:
        raise _refusal(name, dtype, "convert it first")
    if name in ("max", "min"):  # with the sign bit flipped, int64 has the order of uint64
        flip = torch.iinfo(torch.int64).min
        return Encoding(
            name, lambda x: x.view(torch.int64) ^ flip, lambda x: (x ^ flip).view(torch.uint64)
        )
    return Encoding(name, lambda x: x.view(torch.int64), lambda x: x.view(torch.uint64))


def _refusal(name: str, dtype: torch.dtype, hint: str) -> CommUsageError:
    return CommUsageError(f'op="{name}" of {dtype} is not defined', hint)
