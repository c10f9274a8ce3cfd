"""Pytrees of tensors, and the flat buffers in which they travel as few messages."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor

from distrun.comm.errors import CommUsageError
from distrun.torch_private import (
    SUPPORTED_NODES,
    PyTree,
    TreeSpec,
    keystr,
    tree_flatten,
    tree_flatten_with_path,
    tree_unflatten,
)

T = TypeVar("T")
K = TypeVar("K")


class Structure:
    """Where each tensor of a tree stands.

    Tensors are numbered by where they stand, not by the order in which a dict was filled: that
    may differ from rank to rank.

    Args:
        spec: The tree without its leaves; None: a tensor by itself.
        numbers: Of the tensors, in the order in which the tree has them.
        paths: The place of each tensor, in the order of their numbers.
    """

    def __init__(
        self, spec: TreeSpec | None, numbers: Sequence[int], paths: Sequence[str] = ()
    ) -> None:
        self.spec = spec
        self.numbers = numbers
        self.paths = tuple(paths)

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """Return the tree with these in the places of its tensors.

        Called with the results alone: a node's class may look at what it is given.
        """
        if self.spec is None:
            return leaves[0]
        return tree_unflatten([leaves[number] for number in self.numbers], self.spec)

    def __getstate__(self) -> tuple[bytes, Sequence[int], Sequence[str]]:
        return pickle.dumps(self.spec), self.numbers, self.paths

    def __setstate__(self, state: tuple[bytes, Sequence[int], tuple[str, ...]]) -> None:
        spec, self.numbers, self.paths = state
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 warns of its own leaves
            self.spec = pickle.loads(spec)

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
        return [tree], Structure(None, [0], [""])
    places = _places(tree)
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
    _, spec = tree_flatten(tree)
    return [places[i][1] for i in order], Structure(spec, numbers, [places[i][0] for i in order])


def _places(tree: PyTree) -> list[tuple[str, Any]]:
    """Return each leaf with its path, in the order in which the tree has them.

    Below a node whose library says nothing of keys, leaves have numbers.
    """
    found: list[tuple[str, Any]] = []
    for path, leaf in tree_flatten_with_path(tree, is_leaf=_has_no_keys)[0]:
        if _has_no_keys(leaf):
            below, _ = tree_flatten(leaf)
            found += [(f"{keystr(path)}<{i}>", each) for i, each in enumerate(below)]
        else:
            found.append((keystr(path), leaf))
    return found


def _has_no_keys(node: object) -> bool:
    known = SUPPORTED_NODES.get(type(node))
    return known is not None and known.flatten_with_keys_fn is None


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
