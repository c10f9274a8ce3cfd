"""Converts the user's tensors to send buffers and back, and refuses those that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from distrun.comm.errors import CommUsageError
from distrun.comm.ops import Encoding
from distrun.comm.tree import Structure, flatten


def dense(x: Tensor) -> Tensor:
    """Return x detached, contiguous and with its values in memory; x itself if it is already."""
    if x.requires_grad:
        x = x.detach()
    if x.is_conj() or x.is_neg():
        x = x.resolve_conj().resolve_neg()
    return x.contiguous()


def encoded(x: Tensor, how: Encoding) -> Tensor:
    """Return x as it is sent, contiguous; it may share memory with x."""
    plain = dense(x)
    return plain if how.encode is None else dense(how.encode(plain))


def staged(x: Tensor, how: Encoding, out: Tensor | None) -> Tensor:
    """Return a buffer that holds x as it is sent: new memory, or that of x if x is `out`."""
    buffer = encoded(x, how)
    if out is not x and buffer.data_ptr() == x.data_ptr():
        return buffer.clone()
    return buffer


def decoded(buffer: Tensor, how: Encoding, out: Tensor | None) -> Tensor:
    """Return the contents of a buffer in the user's dtype; in `out`, if there is one."""
    result = buffer if how.decode is None else how.decode(buffer)
    if out is None or result is out:
        return result
    if result.data_ptr() != out.data_ptr() or result.stride() != out.stride():
        out.detach().copy_(result)
    return out


def targets_of(
    call: str, leaves: Sequence[Tensor], structure: Structure, tree: Any, out: Any
) -> Sequence[Tensor | None]:
    """Return the tensors of `out`, one for each leaf, or None for each."""
    if out is None:
        return [None] * len(leaves)
    targets, places = flatten(out)
    if places.paths != structure.paths:
        raise CommUsageError(
            f"{call}: out has tensors at {', '.join(places.paths)}, the input at"
            f" {', '.join(structure.paths)}"
        )
    for target, leaf in zip(targets, leaves, strict=True):
        require_like(call, target, leaf)
    return targets


def require_like(call: str, out: Tensor, x: Tensor) -> None:
    """Refuse an `out` that cannot receive the result."""
    if out is not x:
        _require_equal(call, out, x)
    if not out.is_contiguous() and any(
        step == 0 and length > 1 for step, length in zip(out.stride(), out.shape, strict=True)
    ):
        raise CommUsageError(
            f"{call}: out is an expanded tensor, whose elements share memory", "out.clone()"
        )


def _require_equal(call: str, out: object, x: Tensor) -> None:
    if not isinstance(out, Tensor):
        raise CommUsageError(f"{call}: out is a {type(out).__name__}, the result is a tensor")
    wanted = (list(x.shape), x.dtype, x.device)
    given = (list(out.shape), out.dtype, out.device)
    if given != wanted:
        raise CommUsageError(
            f"{call}: out is {given[0]} {given[1]} on {given[2]}, the result is"
            f" {wanted[0]} {wanted[1]} on {wanted[2]}"
        )


def require_tensor(call: str, x: object) -> None:
    """Refuse a value that is not a tensor."""
    if not isinstance(x, Tensor):
        raise CommUsageError(
            f"{call} takes a tensor, not a {type(x).__name__}",
            "for other values: all_gather_object, broadcast_object, …",
        )
