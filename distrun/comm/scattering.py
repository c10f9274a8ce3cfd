"""scatter and all_to_all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, overload

import torch
from torch import Tensor

from distrun.comm.errors import CommUsageError
from distrun.comm.gathering import joined
from distrun.comm.handle import Handle
from distrun.comm.layout import Sizes, cut, from_rows, stated, to_rows
from distrun.comm.objects import Objects, require_picklable
from distrun.comm.packing import Packing, row_nelement, wire
from distrun.comm.staging import dense
from distrun.comm.tree import Structure

Tree = TypeVar("Tree")


class _Parts(NamedTuple):
    """What src sends to the other ranks of a scatter first: how to read their parts."""

    dtypes: list[torch.dtype]
    row_shapes: list[list[int]]
    dims: list[int]
    cuts: list[list[int]]
    tree: Structure


class Scattering(Objects):
    """Collectives that split a tensor into one part per rank.

    They take any dtype and strides, and dicts, lists and tuples of tensors, whose leaves are sent
    as one message.
    """

    @overload
    def scatter(self, x: Tree, src: int = ..., dim: int = ..., *, sizes: Sizes = ...) -> Tree: ...
    @overload
    def scatter(
        self,
        x: Tree,
        src: int = ...,
        dim: int = ...,
        *,
        sizes: Sizes = ...,
        async_op: bool,
    ) -> Handle[Tree]: ...
    def scatter(
        self,
        x: Any,
        src: int = 0,
        dim: int = 0,
        *,
        sizes: Sizes = None,
        async_op: bool = False,
    ) -> Any:
        """Split x of src into one part per rank; each rank gets its part.

        Uses `torch.distributed.all_to_all_single`, in which only src sends data
        (https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.all_to_all_single),
        after a message that describes the parts.

        Args:
            x: [..., L, ...] on src, or a dict, list or tuple of such tensors, each of which is
                split; ignored elsewhere, and may be None. (Torch's list, one tensor a rank, is
                `torch.cat(list)` here.)
            src: The rank whose x is used.
            dim: Where L is; read on src.
            sizes: How much of L each rank gets; read on src. None: L / n.
            async_op: Return a handle at once.

        Returns:
            [..., L / n, ...], or sizes[rank] instead of L / n; the parts are in rank order.

        Raises:
            CommUsageError: There is no such rank, or x of src cannot be split so (raised on every
                rank).
        """
        src = self._require_rank("scatter", "src", src)
        self._begin("scatter", (), src=src)
        here = self.rank == src
        rows, layout = self._layout(x, dim, sizes) if here else ([], None)
        layout = self._broadcast_object(layout, src)
        if isinstance(layout, CommUsageError):
            raise layout
        packing = Packing(layout.dtypes, layout.row_shapes)
        lengths = [list(each) for each in zip(*layout.cuts, strict=True)]  # [n][leaves]
        nbytes = [packing.nbytes(each) for each in lengths]
        parts = [
            r.split_with_sizes(c) for r, c in zip(rows, layout.cuts, strict=False)
        ]  # None except on src
        blocks = [
            packing.pack(p, n) for p, n in zip(zip(*parts, strict=True), nbytes, strict=False)
        ]
        sent = torch.cat(blocks) if here else self._nothing()
        received = sent.new_empty(nbytes[self.rank])
        coming = [nbytes[self.rank] if rank == src else 0 for rank in range(self.world_size)]
        going = nbytes if here else [0] * self.world_size
        return self._carry(
            "scatter",
            lambda: [self.transport.all_to_all(received, sent, coming, going, async_op)],
            lambda: joined(
                packing, received, [len(received)], [lengths[self.rank]], layout.dims, layout.tree
            ),
            async_op,
        )

    def _layout(
        self, x: Any, dim: int, sizes: Sizes
    ) -> tuple[list[Tensor], _Parts | CommUsageError]:
        """Return the rows that src sends, and their description, or why x cannot be split."""
        try:
            leaves, dims, tree = self._leaves("scatter", x, dim)
            if not leaves:
                raise CommUsageError(f"scatter: {x!r:.80} holds no tensor to split")
            for leaf in leaves:
                self._require_usable("scatter", leaf)
            sizes = stated("scatter", sizes, self.world_size)
            cuts = [
                cut("scatter", leaf, d, sizes, self.world_size)
                for leaf, d in zip(leaves, dims, strict=True)
            ]
            require_picklable(tree)
        except CommUsageError as error:
            return [], error
        rows = [to_rows(dense(leaf), d) for leaf, d in zip(leaves, dims, strict=True)]
        shapes = [list(r.shape[1:]) for r in rows]
        return rows, _Parts([r.dtype for r in rows], shapes, dims, cuts, tree)

    def _nothing(self) -> Tensor:
        return torch.empty(0, dtype=torch.uint8, device=self.device)

    @overload
    def all_to_all(self, x: Tree, dim: int = ..., *, sizes: Sizes = ...) -> Tree: ...
    @overload
    def all_to_all(
        self, x: Tree, dim: int = ..., *, sizes: Sizes = ..., async_op: bool
    ) -> Handle[Tree]: ...
    def all_to_all(
        self,
        x: Any,
        dim: int = 0,
        *,
        sizes: Sizes = None,
        async_op: bool = False,
    ) -> Any:
        """Send each rank its part of x, and concatenate the received parts in rank order.

        Uses `torch.distributed.all_to_all_single`
        (https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.all_to_all_single).

        Args:
            x: [..., L, ...] on each rank; or a dict, list or tuple of such tensors, each of which
                is split. (Torch's list, one tensor a rank, is `torch.cat(list)` here.)
            dim: Where L is.
            sizes: How much of L goes to each rank; may differ between ranks. One more message of 8
                bytes per rank then exchanges them. None, on all ranks: L / n to each, and L is
                equal on all ranks.
            async_op: Return a handle at once.

        Returns:
            [..., sum of the received sizes, ...]

        Raises:
            CommUsageError: L is not a multiple of n, or `sizes` do not add up to L.
        """
        sizes = stated("all_to_all", sizes, self.world_size)
        leaves, dims, tree = self._leaves("all_to_all", x, dim)
        cuts = [
            cut("all_to_all", leaf, d, sizes, self.world_size)
            for leaf, d in zip(leaves, dims, strict=True)
        ]
        self._begin("all_to_all", leaves, dim=dim, uneven=sizes is not None, tree=tree)
        if not leaves:
            return self._carry("all_to_all", list, lambda: x, async_op)
        rows = [to_rows(dense(leaf), d) for leaf, d in zip(leaves, dims, strict=True)]
        coming = cuts if sizes is None else [self._swapped(cuts[0])] * len(leaves)
        if len(rows) == 1:  # avoids the copy of packing
            step = row_nelement(rows[0])
            out = rows[0].new_empty((sum(coming[0]), *rows[0].shape[1:]))
            received, sent = wire(out), wire(rows[0])
            out_sizes, going = [c * step for c in coming[0]], [c * step for c in cuts[0]]

            def finish() -> Any:
                return tree.unflatten([from_rows(out, dims[0])])
        else:
            packing = Packing.of(rows)
            lengths = [list(each) for each in zip(*coming, strict=True)]  # [n][leaves]
            going = [packing.nbytes(each) for each in zip(*cuts, strict=True)]
            out_sizes = [packing.nbytes(each) for each in lengths]
            parts = zip(
                *(r.split_with_sizes(c) for r, c in zip(rows, cuts, strict=True)), strict=True
            )
            sent = torch.cat([packing.pack(p, n) for p, n in zip(parts, going, strict=True)])
            received = sent.new_empty(sum(out_sizes))

            def finish() -> Any:
                return joined(packing, received, out_sizes, lengths, dims, tree)

        return self._carry(
            "all_to_all",
            lambda: [self.transport.all_to_all(received, sent, out_sizes, going, async_op)],
            finish,
            async_op,
        )

    def _swapped(self, sizes: Sequence[int]) -> list[int]:
        """Return the sizes that each rank sends here, given those that this rank sends."""
        going = torch.tensor(sizes, dtype=torch.int64, device=self.transport.control_device)
        coming, one_each = torch.empty_like(going), [1] * self.world_size
        self._carry(
            "all_to_all",
            lambda: [self.transport.all_to_all(coming, going, one_each, one_each, False)],
            bool,
            False,
        )
        found: list[int] = coming.tolist()
        return found
