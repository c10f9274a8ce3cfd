"""Pytrees of tensors, and the flat buffers that they are sent in."""

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
    """The structure of a tree, and the place of each tensor in it.

    Tensors are numbered by their paths, not by the insertion order of dicts, which may differ
    between ranks.

    Args:
        spec: The tree without its leaves; None: a tensor by itself.
        numbers: The numbers of the tensors, in the tree's order.
        paths: The path of each tensor, in the order of the numbers.
    """

    def __init__(
        self, spec: TreeSpec | None, numbers: Sequence[int], paths: Sequence[str] = ()
    ) -> None:
        self.spec = spec
        self.numbers = numbers
        self.paths = tuple(paths)

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """Return the tree with these values in place of its tensors.

        Called with results only: the class of a node may inspect its children.
        """
        if self.spec is None:
            return leaves[0]
        return tree_unflatten([leaves[number] for number in self.numbers], self.spec)

    def __getstate__(self) -> tuple[bytes, Sequence[int], Sequence[str]]:
        return pickle.dumps(self.spec), self.numbers, self.paths

    def __setstate__(self, state: tuple[bytes, Sequence[int], tuple[str, ...]]) -> None:
        spec, self.numbers, self.paths = state
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 warns about its own leaves
            self.spec = pickle.loads(spec)

    def __str__(self) -> str:
        """Return a text that differs if the paths differ; "" for a single tensor."""
        text = "\n".join(self.paths)
        return "#" + hashlib.blake2b(text.encode(), digest_size=4).hexdigest() if text else ""


def flatten(tree: PyTree) -> tuple[list[Tensor], Structure]:
    """Return the tensors of a dict, list, tuple or nest of them, and its structure.

    Raises:
        CommUsageError: A leaf is not a tensor.
    """
    if isinstance(tree, Tensor):
        return [tree], Structure(None, [0], [""])
    places = _places(tree)
    for place, leaf in places:
        if not isinstance(leaf, Tensor):
            what = f"leaf {place} is not a tensor: {leaf!r:.60}" if place else f"it is {leaf!r:.80}"
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
    """Return each leaf with its path, in the tree's order.

    Below a node that is registered without keys, leaves have numbers.
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
    """Return views of a buffer, one per shape; the rest is padding."""
    counts = [prod(shape) for shape in shapes]
    parts = flat[: sum(counts)].split_with_sizes(counts)
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
