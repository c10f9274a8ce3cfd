"""Splits tensors along a dimension into one part per rank, and joins them again.

"Rows" are a contiguous tensor with that dimension moved to the front: the part of each rank is then
one block of memory.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import SupportsIndex

import torch
from torch import Tensor

from distrun.comm.errors import CommUsageError

Sizes = Iterable[SupportsIndex] | None
"""How much each rank gets or sends: a list, an array or a tensor of integers."""


def require_dim(call: str, x: Tensor, dim: int) -> int:
    """Return `dim` as a non-negative number.

    Raises:
        CommUsageError: x has no such dimension.
    """
    if not isinstance(dim, Integral) or not -x.ndim <= dim < x.ndim:
        raise CommUsageError(
            f"{call}: dim={dim!r:.80} is out of range for a tensor of shape {list(x.shape)}",
            f"from {-x.ndim} to {x.ndim - 1}"
            if x.ndim
            else "a scalar has no dimension: pass x.reshape(1)",
        )
    return int(dim) % x.ndim


def to_rows(x: Tensor, dim: int) -> Tensor:
    """Return x with `dim` in front, contiguous: [..., L, ...] -> [L, ...]."""
    return x.movedim(dim, 0).contiguous() if dim else x


def from_rows(rows: Tensor, dim: int) -> Tensor:
    """Undo `to_rows`: [L, ...] -> [..., L, ...]."""
    return rows.movedim(0, dim).contiguous() if dim else rows


def stated(call: str, sizes: object, world_size: int) -> list[int] | None:
    """Return sizes as a list, or None if none are given; see `require_sizes`."""
    return None if sizes is None else require_sizes(call, sizes, world_size)


def require_sizes(call: str, sizes: object, world_size: int) -> list[int]:
    """Return sizes as a list.

    Raises:
        CommUsageError: They are not one number per rank, each 0 or more.
    """
    try:
        numbers = [operator.index(size) for size in sizes]  # type: ignore[attr-defined] # not iterable: refused below
    except TypeError:
        numbers = []
    if len(numbers) != world_size or min(numbers) < 0:
        raise CommUsageError(
            f"{call}: sizes={sizes!r} must be {world_size} numbers, one per rank, each 0 or more"
        )
    return numbers


def cut(call: str, x: Tensor, dim: int, sizes: Sizes, world_size: int) -> list[int]:
    """Return how many rows of x go to each rank: [n].

    Args:
        call: For messages.
        x: [..., L, ...]
        dim: Where L is.
        sizes: As the caller passed them; None: equal parts.
        world_size: n.

    Raises:
        CommUsageError: L is not a multiple of n, or the sizes do not add up to L.
    """
    length = x.shape[dim]
    if sizes is None:
        if length % world_size:
            raise CommUsageError(
                f"{call}: dim {dim} has {length} rows, which cannot be divided by {world_size}"
                " ranks",
                f"pad it to {length + -length % world_size}, or pass sizes=[…], one number per"
                " rank",
            )
        return [length // world_size] * world_size
    wanted = require_sizes(call, sizes, world_size)
    if sum(wanted) != length:
        raise CommUsageError(
            f"{call}: sizes={wanted} add up to {sum(wanted)}, dim {dim} has {length} rows"
        )
    return wanted


def padded(parts: Sequence[Tensor]) -> Tensor:
    """Copy flat parts into one buffer, each padded to the longest: [n * longest]."""
    longest = max(len(part) for part in parts)
    if all(len(part) == longest for part in parts):
        return torch.cat(tuple(parts))
    buffer = parts[0].new_zeros((len(parts), longest))
    for place, part in zip(buffer, parts, strict=True):
        place[: len(part)] = part
    return buffer.view(-1)
