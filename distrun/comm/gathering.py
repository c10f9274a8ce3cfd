"""all_gather and gather."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor

from distrun.comm.errors import CommUsageError
from distrun.comm.group import Group
from distrun.comm.handle import Handle
from distrun.comm.layout import Sizes, from_rows, require_dim, stated, to_rows
from distrun.comm.packing import Packing, wire
from distrun.comm.staging import dense
from distrun.comm.tree import Structure, flatten

Tree = TypeVar("Tree")


class Gathering(Group):
    """Collectives that concatenate the tensors of several ranks.

    They take any dtype and strides, and dicts, lists and tuples of tensors, whose leaves are sent
    as one message.
    """

    @overload
    def all_gather(
        self, x: Tree, dim: int = ..., *, sizes: Sizes | Literal["equal"] = ...
    ) -> Tree: ...
    @overload
    def all_gather(
        self, x: Tree, dim: int = ..., *, sizes: Sizes | Literal["equal"] = ..., async_op: bool
    ) -> Handle[Tree]: ...
    def all_gather(
        self,
        x: Any,
        dim: int = 0,
        *,
        sizes: Sizes | Literal["equal"] = None,
        async_op: bool = False,
    ) -> Any:
        """Concatenate the tensors of all ranks, in rank order; every rank gets the result.

        Uses `torch.distributed.all_gather_single`, before torch 2.12
        `all_gather_into_tensor`
        (https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.all_gather_into_tensor).

        Args:
            x: [..., l, ...] on each rank, where l may differ from rank to rank; a scalar
                counts as [1]. Or a dict, list or tuple of such tensors.
            dim: Where l is: the dimension to join along.
            sizes: l of each rank, the same list on all ranks; "equal": l is the same on all ranks.
                None: the ranks exchange them, which costs one more message of 8 bytes per tensor.
                Unequal parts are padded to the longest in transit.
            async_op: Return a handle at once.

        Returns:
            [..., sum of l, ...]

        Raises:
            CommUsageError: There is no such dim, or `sizes` does not match this rank's tensors.
        """
        leaves, dims, tree = self._leaves("all_gather", x, dim)
        lengths = [leaf.shape[d] for leaf, d in zip(leaves, dims, strict=True)]
        equal = isinstance(sizes, str) and sizes == "equal"
        counts = None if equal else stated("all_gather", sizes, self.world_size)
        known = [lengths] * self.world_size if equal else self._known(counts, lengths)
        self._begin(
            "all_gather",
            leaves,
            dim=dim,
            sizes="equal" if equal else counts,
            uneven=not equal,
            tree=tree,
        )
        if not leaves:
            return self._carry("all_gather", list, lambda: x, async_op)
        everyones = known or self._everyones(lengths)
        rows = [to_rows(dense(leaf), d) for leaf, d in zip(leaves, dims, strict=True)]
        if len(rows) == 1 and all(each == lengths for each in everyones):
            out = rows[0].new_empty((self.world_size * lengths[0], *rows[0].shape[1:]))
            return self._carry(
                "all_gather",
                lambda: [self.transport.all_gather(wire(out), wire(rows[0]), async_op)],
                lambda: tree.unflatten([from_rows(out, dims[0])]),
                async_op,
            )
        packing = Packing.of(rows)
        longest = max(packing.nbytes(each) for each in everyones)
        sent = packing.pack(rows, longest)
        blocks = sent.new_empty(self.world_size * longest)
        return self._carry(
            "all_gather",
            lambda: [self.transport.all_gather(blocks, sent, async_op)],
            lambda: joined(packing, blocks, [longest] * self.world_size, everyones, dims, tree),
            async_op,
        )

    @overload
    def gather(self, x: Tree, dst: int = ..., dim: int = ...) -> Tree | None: ...
    @overload
    def gather(
        self, x: Tree, dst: int = ..., dim: int = ..., *, async_op: bool
    ) -> Handle[Tree | None]: ...
    def gather(self, x: Any, dst: int = 0, dim: int = 0, *, async_op: bool = False) -> Any:
        """Concatenate the tensors of all ranks, in rank order; only dst gets the result.

        Uses `torch.distributed.all_to_all_single`, in which only dst receives data
        (https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.all_to_all_single).

        Args:
            x: [..., l, ...] on each rank, as in `all_gather`.
            dst: The rank that gets the result.
            dim: The dimension along which they are joined.
            async_op: Return a handle at once.

        Returns:
            [..., sum of l, ...] on dst, None elsewhere.

        Raises:
            CommUsageError: There is no such dim or rank.
        """
        dst = self._require_rank("gather", "dst", dst)
        leaves, dims, tree = self._leaves("gather", x, dim)
        self._begin("gather", leaves, dim=dim, dst=dst, uneven=True, tree=tree)
        if not leaves:
            return self._carry("gather", list, lambda: x if self.rank == dst else None, async_op)
        lengths = [leaf.shape[d] for leaf, d in zip(leaves, dims, strict=True)]
        everyones = self._everyones(lengths)
        rows = [to_rows(dense(leaf), d) for leaf, d in zip(leaves, dims, strict=True)]
        packing = Packing.of(rows)
        sent = packing.pack(rows, packing.nbytes(lengths))
        here = self.rank == dst
        out_sizes = [packing.nbytes(each) if here else 0 for each in everyones]
        blocks = sent.new_empty(sum(out_sizes))
        sizes = [len(sent) if rank == dst else 0 for rank in range(self.world_size)]
        return self._carry(
            "gather",
            lambda: [self.transport.all_to_all(blocks, sent, out_sizes, sizes, async_op)],
            lambda: joined(packing, blocks, out_sizes, everyones, dims, tree) if here else None,
            async_op,
        )

    def _leaves(self, call: str, x: Any, dim: int) -> tuple[list[Tensor], list[int], Structure]:
        """Return the leaves of x, scalars as [1], and the non-negative `dim` of each."""
        leaves, tree = flatten(x)
        self._require_fit(call, leaves)
        leaves = [leaf.reshape(1) if leaf.ndim == 0 else leaf for leaf in leaves]
        return leaves, [require_dim(call, leaf, dim) for leaf in leaves], tree

    def _known(self, counts: list[int] | None, lengths: list[int]) -> list[list[int]] | None:
        """Return every rank's lengths of the leaves from `sizes`: [n][leaves]."""
        if counts is None:
            return None
        if any(length != counts[self.rank] for length in lengths):
            raise CommUsageError(
                f"all_gather: sizes[{self.rank}] is {counts[self.rank]}, the tensors of this rank"
                f" have {lengths}"
            )
        return [[count] * len(lengths) for count in counts]

    def _everyones(self, mine: list[int]) -> list[list[int]]:
        """Return the k numbers of each rank: [n][k]."""
        sent = torch.tensor(mine, dtype=torch.int64, device=self.transport.control_device)
        found = sent.new_empty(self.world_size * len(mine))
        self._carry(
            "all_gather", lambda: [self.transport.all_gather(found, sent, False)], bool, False
        )
        numbers: list[list[int]] = found.view(self.world_size, len(mine)).tolist()
        return numbers


def joined(
    packing: Packing,
    blocks: Tensor,
    nbytes: Sequence[int],
    lengths: Sequence[Sequence[int]],
    dims: Sequence[int],
    tree: Structure,
) -> Any:
    """Return the tree whose leaves' rows were received in blocks, one of `nbytes` per rank."""
    rows = packing.unpack_all(blocks, nbytes, lengths)
    return tree.unflatten([from_rows(r, d) for r, d in zip(rows, dims, strict=True)])
