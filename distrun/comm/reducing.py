"""all_reduce, reduce and reduce_scatter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, overload

from torch import Tensor

from distrun.comm.group import Group
from distrun.comm.handle import Handle
from distrun.comm.layout import Sizes, cut, from_rows, padded, require_dim, stated, to_rows
from distrun.comm.ops import encoding
from distrun.comm.staging import decoded, encoded, require_like, require_tensor, staged, targets_of
from distrun.comm.tree import by_key, flatten, pack, unpack

Tree = TypeVar("Tree")


class Reducing(Group):
    """Collectives that reduce one tensor of every rank, element by element.

    Reductions (`op`): sum, mean, prod, max, min, band, bor, bxor. max and min keep NaN;
    of bools, sum, max and bor are "or", prod, min and band are "and"; complex numbers have sum and
    mean; the mean of integers is refused. x may have any shape, strides and dtype except float8.
    They have no gradients; `distrun.comm.functional` has.
    """

    @overload
    def all_reduce(self, x: Tree, op: str = ..., *, out: Tree | None = ...) -> Tree: ...
    @overload
    def all_reduce(
        self, x: Tree, op: str = ..., *, out: Tree | None = ..., async_op: bool
    ) -> Handle[Tree]: ...
    def all_reduce(
        self, x: Any, op: str = "sum", *, out: Any = None, async_op: bool = False
    ) -> Any:
        """Reduce x over the ranks; every rank gets the result.

        Uses `torch.distributed.all_reduce`
        (https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.all_reduce).

        Args:
            x: [...] on each rank; or a dict, list or tuple of such tensors, which are sent as one
                message per dtype.
            op: sum, mean, prod, max, min, band, bor or bxor.
            out: Receives the result, [...] as x; `out=x` works in place. None: a new tensor.
            async_op: Return a handle at once.

        Returns:
            [...] as x, without gradients: see `comm.functional.all_reduce`.

        Raises:
            CommUsageError: The reduction is not defined for the dtype, or `out` does not fit.
            CommError: See `distrun.comm.errors`; this applies to every collective.
        """
        if not isinstance(x, Tensor):
            return self._all_reduce_tree(x, op, out, async_op)
        how = encoding(op, x.dtype)
        if out is not None:
            require_like("all_reduce", out, x)
        self._begin("all_reduce", (x,), op=op)
        buffer = staged(x, how, out)
        if async_op:
            return self._carry(
                "all_reduce",
                lambda: [self.transport.all_reduce(buffer, how.op, True)],
                lambda: decoded(buffer, how, out),
                True,
            )
        try:  # the path of every training step: kept short
            self.transport.all_reduce(buffer, how.op, False).wait()
        except RuntimeError as error:
            raise self._broken("all_reduce", error) from None
        return decoded(buffer, how, out)

    def all_reduce_(self, x: Tree, op: str = "sum") -> Tree:
        """Reduce x over the ranks in place: `all_reduce(x, op, out=x)`."""
        return self.all_reduce(x, op, out=x)

    def _all_reduce_tree(self, tree: Any, op: str, out: Any, async_op: bool) -> Any:
        leaves, structure = flatten(tree)
        targets = targets_of("all_reduce", leaves, structure, tree, out)
        hows = [encoding(op, x.dtype) for x in leaves]
        self._begin("all_reduce", leaves, op=op, tree=structure)
        coded = [encoded(x, how) for x, how in zip(leaves, hows, strict=True)]
        messages = by_key(range(len(leaves)), lambda i: (hows[i].op, coded[i].dtype))
        buffers = [pack([coded[i] for i in indices]) for indices in messages.values()]

        def finish() -> Any:
            results: list[Any] = [None] * len(leaves)
            for indices, buffer in zip(messages.values(), buffers, strict=True):
                parts = unpack(buffer, [coded[i].shape for i in indices])
                for i, part in zip(indices, parts, strict=True):
                    results[i] = decoded(part, hows[i], targets[i])
            return structure.unflatten(results)

        return self._carry(
            "all_reduce",
            lambda: [
                self.transport.all_reduce(buffer, name, async_op)
                for (name, _), buffer in zip(messages, buffers, strict=True)
            ],
            finish,
            async_op,
        )

    @overload
    def reduce(self, x: Tensor, dst: int = ..., op: str = ...) -> Tensor | None: ...
    @overload
    def reduce(
        self, x: Tensor, dst: int = ..., op: str = ..., *, async_op: bool
    ) -> Handle[Tensor | None]: ...
    def reduce(self, x: Tensor, dst: int = 0, op: str = "sum", *, async_op: bool = False) -> Any:
        """Reduce x over the ranks; only dst gets the result.

        Uses `torch.distributed.reduce`
        (https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.reduce).

        Args:
            x: [...] on each rank.
            dst: The rank that gets the result.
            op: The reduction.
            async_op: Return a handle at once.

        Returns:
            [...] on dst, None elsewhere. x is not changed.

        Raises:
            CommUsageError: There is no rank dst, or the reduction is not defined for the dtype.
        """
        require_tensor("reduce", x)
        dst = self._require_rank("reduce", "dst", dst)
        how = encoding(op, x.dtype)
        self._begin("reduce", (x,), op=op, dst=dst)
        buffer = staged(x, how, None)
        return self._carry(
            "reduce",
            lambda: [self.transport.reduce(buffer, dst, how.op, async_op)],
            lambda: decoded(buffer, how, None) if self.rank == dst else None,
            async_op,
        )

    @overload
    def reduce_scatter(
        self, x: Tree, dim: int = ..., *, op: str = ..., sizes: Sizes = ...
    ) -> Tree: ...
    @overload
    def reduce_scatter(
        self,
        x: Tree,
        dim: int = ...,
        *,
        op: str = ...,
        sizes: Sizes = ...,
        async_op: bool,
    ) -> Handle[Tree]: ...
    def reduce_scatter(
        self,
        x: Any,
        dim: int = 0,
        *,
        op: str = "sum",
        sizes: Sizes = None,
        async_op: bool = False,
    ) -> Any:
        """Reduce x over the ranks; each rank gets one part of the result.

        Uses `torch.distributed.reduce_scatter_single`, before torch 2.12
        `reduce_scatter_tensor`
        (https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.reduce_scatter_tensor).

        Args:
            x: [..., L, ...] on each rank; or a dict, list or tuple of such tensors, each of which
                is split. (Torch's lists, one tensor a rank, are `torch.cat(list)` here.)
            dim: Where L is: the dimension to split.
            op: The reduction.
            sizes: How much of L each rank gets, the same list on all ranks; None: L / n. Unequal
                parts are padded to the longest in transit.
            async_op: Return a handle at once.

        Returns:
            [..., L / n, ...], or sizes[rank] instead of L / n; the parts are in rank order.

        Raises:
            CommUsageError: L is not a multiple of n, or `sizes` do not add up to L.
        """
        leaves, structure = flatten(x)
        sizes = stated("reduce_scatter", sizes, self.world_size)
        dims = [require_dim("reduce_scatter", leaf, dim) for leaf in leaves]
        cuts = [
            cut("reduce_scatter", leaf, d, sizes, self.world_size)
            for leaf, d in zip(leaves, dims, strict=True)
        ]
        hows = [encoding(op, leaf.dtype) for leaf in leaves]
        self._begin("reduce_scatter", leaves, op=op, dim=dim, sizes=sizes, tree=structure)
        rows = [
            encoded(to_rows(leaf, d), how) for leaf, d, how in zip(leaves, dims, hows, strict=True)
        ]
        messages = by_key(range(len(leaves)), lambda i: (hows[i].op, rows[i].dtype))
        sent = [_parts([(rows[i], cuts[i]) for i in each]) for each in messages.values()]
        kept = [buffer.new_empty(len(buffer) // self.world_size) for buffer in sent]

        def finish() -> Any:
            results: list[Any] = [None] * len(leaves)
            for indices, buffer in zip(messages.values(), kept, strict=True):
                shapes = [[cuts[i][self.rank], *rows[i].shape[1:]] for i in indices]
                for i, part in zip(indices, unpack(buffer, shapes), strict=True):
                    results[i] = from_rows(decoded(part, hows[i], None), dims[i])
            return structure.unflatten(results)

        return self._carry(
            "reduce_scatter",
            lambda: [
                self.transport.reduce_scatter(out, buffer, name, async_op)
                for (name, _), out, buffer in zip(messages, kept, sent, strict=True)
            ],
            finish,
            async_op,
        )


def _parts(leaves: Sequence[tuple[Tensor, Sequence[int]]]) -> Tensor:
    """Order the data by destination rank: rows [L, ...] of each leaf -> [n * k]."""
    ((rows, sizes), *more) = leaves
    if not more and len(set(sizes)) == 1:
        return rows.reshape(-1)
    cuts = [leaf.split_with_sizes(list(sizes)) for leaf, sizes in leaves]
    return padded([pack(parts) for parts in zip(*cuts, strict=True)])
