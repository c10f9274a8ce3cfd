"""Pytrees of tensors, and the flat buffers in which they travel as few messages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import (
    PyTree,
    keystr,
    tree_flatten_with_path,
    tree_map,
    tree_structure,
    tree_unflatten,
)

from distrun.comm.errors import CommUsageError

T = TypeVar("T")
K = TypeVar("K")


class Structure:
    """Where each tensor of a tree stands.

    Tensors are numbered by where they stand, not by the order in which a dict was filled: that
    may differ from rank to rank.

    Args:
        skeleton: The tree, with the number of each tensor in its place.
        paths: The place of each tensor, in the order of their numbers.
    """

    def __init__(self, skeleton: PyTree, paths: Sequence[str]) -> None:
        self.skeleton = skeleton
        self.paths = tuple(paths)

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """Return the tree with these in the places of its tensors."""
        return tree_map(lambda number: leaves[number], self.skeleton)

    def __str__(self) -> str:
        """Return a text that differs where the places do; "" for a tensor by itself."""
        text = "\n".join(self.paths)
        return "#" + hashlib.blake2b(text.encode(), digest_size=4).hexdigest() if text else ""


def flatten(tree: PyTree) -> tuple[list[Tensor], Structure]:
    """Return the tensors of a dict, list, tuple or nest of them, and its structure.

    Raises:
        CommUsageError: A leaf is no tensor.
    """
    if isinstance(tree, Tensor):
        return [tree], Structure(0, [""])
    found, _ = tree_flatten_with_path(tree)
    places = [(keystr(path), leaf) for path, leaf in found]
    for place, leaf in places:
        if not isinstance(leaf, Tensor):
            what = f"leaf {place} is no tensor: {leaf!r:.60}" if place else f"it is {leaf!r:.80}"
            raise CommUsageError(
                f"a collective takes tensors, and dicts, lists and tuples of them; {what}",
                "for other values: all_gather_object, broadcast_object, …",
            )
    order = sorted(range(len(places)), key=lambda i: places[i][0])
    numbers = [0] * len(order)
    for number, i in enumerate(order):
        numbers[i] = number
    skeleton = tree_unflatten(numbers, tree_structure(tree))
    return [places[i][1] for i in order], Structure(skeleton, [places[i][0] for i in order])


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
