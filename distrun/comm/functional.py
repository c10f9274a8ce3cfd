"""Collectives with gradients.

The gradients are those of the sum of all ranks' losses, so backward() calls collectives itself.
Every rank that took part in forward() must call backward(), and each result must be part of that
rank's loss, if only as `0 * y.sum()`. A rank then takes part even if its own input requires no
gradient. Second derivatives work.

Compare `torch.distributed.nn.functional`, which is deprecated from torch 2.12 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from distrun.comm.errors import CommUsageError
from distrun.comm.layout import Sizes, require_dim, stated
from distrun.comm.ops import op_name
from distrun.comm.world import World
from distrun.torch_private import keep_out_of_graphs


def all_reduce(x: Tensor, world: World, op: str = "sum") -> Tensor:
    """Reduce x over the ranks: [...] to [...]; see `World.all_reduce`.

    The gradient of sum is the sum of all ranks' gradients. If several ranks have the max or min,
    they share the gradient equally.

    Args:
        x: [...] on each rank.
        world: The group.
        op: sum, mean, prod, max or min.

    Raises:
        CommUsageError: The reduction has no gradient, or is not defined for the dtype.
    """
    name = op_name(op)
    if name not in ("sum", "mean", "prod", "max", "min"):
        raise CommUsageError(f'functional.all_reduce: op="{name}" has no gradient')
    return _apply(_AllReduce, x, world, name)


def reduce(x: Tensor, world: World, dst: int = 0, op: str = "sum") -> Tensor:
    """Reduce x over the ranks for dst: [...] to [...], zeros elsewhere; see `World.reduce`.

    Args:
        x: [...] on each rank.
        world: The group.
        dst: The rank that gets the result.
        op: sum or mean.

    Raises:
        CommUsageError: There is no rank dst, or the reduction is neither sum nor mean.
    """
    return _apply(_Reduce, x, world, dst, _linear("reduce", op))


def broadcast(x: Tensor, world: World, src: int = 0) -> Tensor:
    """Return x of src on every rank: [...] to [...]; see `World.broadcast`.

    Args:
        x: [...] on each rank; only src's x gets a gradient.
        world: The group.
        src: The rank whose x is used.
    """
    return _apply(_Broadcast, x, world, src)


def all_gather(x: Tensor, world: World, dim: int = 0) -> Tensor:
    """Concatenate x of all ranks: [..., l, ...] to [..., sum of l, ...]; see `World.all_gather`.

    Args:
        x: [..., l, ...] on each rank; l may differ.
        world: The group.
        dim: The dimension to join along.
    """
    x = x.reshape(1) if x.ndim == 0 else x
    dim = require_dim("functional.all_gather", x, dim)
    return _apply(_AllGather, x, world, dim, _lengths(x, world, dim))


def reduce_scatter(
    x: Tensor, world: World, dim: int = 0, op: str = "sum", sizes: Sizes = None
) -> Tensor:
    """Reduce x over the ranks, and return this rank's part: [..., L, ...] to [..., L / n, ...].

    See `World.reduce_scatter`.

    Args:
        x: [..., L, ...] on each rank.
        world: The group.
        dim: The dimension to split.
        op: sum or mean.
        sizes: How much of L each rank gets; None: L / n.
    """
    linear = _linear("reduce_scatter", op)
    counts = stated("functional.reduce_scatter", sizes, world.world_size)
    return _apply(_ReduceScatter, x, world, dim, linear, counts)


def all_to_all(x: Tensor, world: World, dim: int = 0, sizes: Sizes = None) -> Tensor:
    """Send each rank its part of x, and concatenate the received parts; see `World.all_to_all`.

    Args:
        x: [..., L, ...] on each rank.
        world: The group.
        dim: The dimension to split.
        sizes: How much of L goes to each rank; None on all ranks: L / n.
    """
    counts = stated("functional.all_to_all", sizes, world.world_size)
    return _apply(_AllToAll, x, world, dim, counts)


def gather(x: Tensor, world: World, dst: int = 0, dim: int = 0) -> Tensor:
    """Concatenate x of all ranks on dst: [..., l, ...] to [..., sum of l, ...], elsewhere [0].

    See `World.gather`.

    Args:
        x: [..., l, ...] on each rank; l may differ.
        world: The group.
        dst: The rank that gets the result.
        dim: The dimension to join along.
    """
    x = x.reshape(1) if x.ndim == 0 else x
    dim = require_dim("functional.gather", x, dim)
    return _apply(_Gather, x, world, dst, dim, _lengths(x, world, dim))


def scatter(
    x: Tensor | None, world: World, src: int = 0, dim: int = 0, sizes: Sizes = None
) -> Tensor:
    """Split x of src, and return this rank's part: [..., L, ...] to [..., L / n, ...].

    See `World.scatter`.

    Args:
        x: [..., L, ...] on src, None elsewhere.
        world: The group.
        src: The rank whose x is used.
        dim: The dimension to split; read on src.
        sizes: How much of L each rank gets; read on src. None: L / n.
    """
    return _apply(_Scatter, x, world, src, dim, sizes)


keep_out_of_graphs(
    *(all_reduce, reduce, broadcast, all_gather, reduce_scatter, all_to_all, gather, scatter)
)


def _apply(function: type[Function], x: Tensor | None, world: World, *rest: Any) -> Tensor:
    # The second input makes autograd call backward() also on ranks whose x needs no gradient.
    anchor = torch.empty(0, requires_grad=True)
    result: Tensor = function.apply(x, anchor, world, *rest)
    return result


def _linear(call: str, op: str) -> str:
    name = op_name(op)
    if name not in ("sum", "mean"):
        raise CommUsageError(f'functional.{call}: op="{name}" has no gradient here', "sum or mean")
    return name


def _lengths(x: Tensor, world: World, dim: int) -> list[int]:
    """Return the length of every rank's x in a dimension: [n]."""
    lengths: list[int] = world.all_gather_object(x.shape[dim])
    return lengths


class _AllReduce(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, world: World, op: str) -> Tensor:
        y = world.all_reduce(x, op)
        ctx.world, ctx.op = world, op
        ctx.save_for_backward(*([x, y] if op in ("prod", "max", "min") else []))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        world, op = ctx.world, ctx.op
        if op in ("sum", "mean"):
            return all_reduce(grad, world, op), None, None, None
        x, y = ctx.saved_tensors
        whole = all_reduce(grad, world)
        if op == "prod":
            return whole * _product_of_others(x, world), None, None, None
        holds = (x == y) | (x.isnan() & y.isnan())
        share = holds / world.all_reduce(holds.to(x.dtype))
        return whole * share, None, None, None


def _product_of_others(x: Tensor, world: World) -> Tensor:
    everyones = all_gather(x.unsqueeze(0), world)  # [n, ...]
    others = [r for r in range(world.world_size) if r != world.rank]
    return everyones[others].prod(dim=0)


class _Reduce(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, world: World, dst: int, op: str) -> Tensor:
        ctx.world, ctx.dst, ctx.op = world, dst, op
        y = world.reduce(x, dst, op)
        return torch.zeros_like(x) if y is None else y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        whole = broadcast(grad, ctx.world, ctx.dst)
        part = whole / ctx.world.world_size if ctx.op == "mean" else whole
        return part, None, None, None, None


class _Broadcast(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, world: World, src: int) -> Tensor:
        ctx.world, ctx.src = world, src
        return world.broadcast(x, src)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return reduce(grad, ctx.world, ctx.src), None, None, None


class _AllGather(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor, world: World, dim: int, lengths: list[int]
    ) -> Tensor:
        ctx.world, ctx.dim, ctx.lengths = world, dim, lengths
        return world.all_gather(x, dim, sizes=lengths)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        part = reduce_scatter(grad, ctx.world, ctx.dim, "sum", ctx.lengths)
        return part, None, None, None, None


class _ReduceScatter(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        anchor: Tensor,
        world: World,
        dim: int,
        op: str,
        sizes: Sequence[int] | None,
    ) -> Tensor:
        ctx.world, ctx.dim, ctx.op = world, dim, op
        return world.reduce_scatter(x, dim, op=op, sizes=sizes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        whole = all_gather(grad, ctx.world, ctx.dim)
        part = whole / ctx.world.world_size if ctx.op == "mean" else whole
        return part, None, None, None, None, None


class _AllToAll(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor, world: World, dim: int, sizes: Sequence[int] | None
    ) -> Tensor:
        ctx.world, ctx.dim = world, dim
        # The gradient of what each rank sent goes back to it.
        ctx.back = None if sizes is None else [each[world.rank] for each in _all(world, sizes)]
        return world.all_to_all(x, dim, sizes=sizes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return all_to_all(grad, ctx.world, ctx.dim, ctx.back), None, None, None, None


def _all(world: World, sizes: Sequence[int]) -> list[list[int]]:
    everyones: list[list[int]] = world.all_gather_object(list(sizes))
    return everyones


class _Gather(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor, world: World, dst: int, dim: int, lengths: list[int]
    ) -> Tensor:
        ctx.world, ctx.dst, ctx.dim, ctx.lengths = world, dst, dim, lengths
        y = world.gather(x, dst, dim)
        return x.new_empty(0) if y is None else y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        part = scatter(grad, ctx.world, ctx.dst, ctx.dim, ctx.lengths)
        return part, None, None, None, None, None


class _Scatter(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor | None,
        anchor: Tensor,
        world: World,
        src: int,
        dim: int,
        sizes: Sizes,
    ) -> Tensor:
        ctx.world, ctx.src = world, src
        ctx.dim = world.broadcast_object(dim, src)
        part = world.scatter(x, src, dim, sizes=sizes)
        assert part is not None  # x is None, but not on src
        return part

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        whole = gather(grad, ctx.world, ctx.src, ctx.dim)
        mine = whole if ctx.world.rank == ctx.src else None
        return mine, None, None, None, None, None
