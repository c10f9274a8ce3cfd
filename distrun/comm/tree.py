"""Pytrees of tensors, and the flat buffers in which they travel as few messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import (
    PyTree,
    TreeSpec,
    keystr,
    tree_flatten,
    tree_flatten_with_path,
    tree_unflatten,
)

from distrun.comm.errors import CommUsageError

T = TypeVar("T")
K = TypeVar("K")


def flatten(tree: PyTree) -> tuple[list[Tensor], TreeSpec]:
    """Return the tensors of a dict, list, tuple or nest of them, and its structure.

    Raises:
        CommUsageError: A leaf is no tensor.
    """
    leaves, spec = tree_flatten(tree)
    for index, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor):
            path = keystr(tree_flatten_with_path(tree)[0][index][0])
            what = f"leaf {path} is a {type(leaf).__name__}" if path else f"it is {leaf!r:.80}"
            raise CommUsageError(
                f"a collective takes tensors, and dicts, lists and tuples of them; {what}",
                "for other values: all_gather_object, broadcast_object, …",
            )
    return leaves, spec


def unflatten(leaves: Sequence[Any], spec: TreeSpec) -> Any:
    """Put leaves back into their structure."""
    return tree_unflatten(leaves, spec)


def by_key(items: Sequence[T], key: Callable[[T], K]) -> dict[K, list[int]]:
    """Return the indices of items with equal keys; the groups in order of appearance."""
    groups: dict[K, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(key(item), []).append(index)
    return groups


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Return the elements of tensors of one dtype in one new buffer: [total]."""
    return torch.cat([t.reshape(-1) for t in tensors])


def unpack(flat: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return views of a buffer, one a shape; what follows the last is padding."""
    counts = [prod(shape) for shape in shapes]
    parts = flat[: sum(counts)].split_with_sizes(counts)
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
