"""all_gather, gather, scatter, all_to_all, broadcast, send and recv: nothing is changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils._pytree import register_pytree_node, tree_map

from distrun.comm import CollectiveMismatchError, World
from distrun.comm import functional as F
from tests.unit.comm.collective_cases import DTYPES, SHAPES, Cases, Pair, made, same, views

CASES = Cases()


def tree_of(rank: int, length: int) -> dict[str, Any]:
    """Return tensors of odd dtypes, all with `length` rows."""
    odd = Pair(made(rank, (length, 3), torch.uint8), made(rank, (length,), torch.complex128))
    return {"b": [made(rank, (length, 2)), odd], "a": (made(rank, (length,), torch.bool),)}


def joined(trees: list[Any]) -> Any:
    return tree_map(lambda *leaves: torch.cat(leaves), *trees)


@CASES
def all_gather_and_gather_join_along_any_dim(world: World) -> None:
    n, shape = world.world_size, (2, 3, 4)
    for dim in range(-3, 3):
        truth = torch.cat([made(r, shape) for r in range(n)], dim)
        for name, x in views(made(world.rank, shape)):
            before = x.clone()
            found = world.all_gather(x, dim)
            same(found, truth, (dim, name))
            assert found.is_contiguous()
            on_root = world.gather(x, n - 1, dim)
            assert (on_root is None) == (world.rank != n - 1)
            if on_root is not None:
                same(on_root, truth, (dim, name))
            same(x, before, "the input")


@CASES
def sizes_may_be_a_list_an_array_or_a_tensor(world: World) -> None:
    n, sizes = world.world_size, [r + 1 for r in range(world.world_size)]
    x, part = torch.arange(float(sum(sizes))), torch.ones(world.rank + 1)
    forms = [sizes, tuple(sizes), np.array(sizes), torch.tensor(sizes)]
    for step in range(len(forms)):
        form: Any = forms[(step + world.rank) % len(forms)]  # every rank has another
        assert world.reduce_scatter(x, sizes=form).shape == (sizes[world.rank],)
        assert world.all_gather(part, sizes=form).shape == x.shape
        assert world.scatter(x, sizes=form).shape == (sizes[world.rank],)
        same(world.all_to_all(x, sizes=form), F.all_to_all(x, world, sizes=form))
        same(world.reduce_scatter(x, sizes=form), F.reduce_scatter(x, world, sizes=form))
        same(world.scatter(x, sizes=form), F.scatter(x, world, sizes=form))
        assert F.all_to_all(x, world, sizes=form).shape == (n * sizes[world.rank],)
    same(world.all_gather(part, sizes=iter(sizes)), torch.ones(sum(sizes)))


@CASES
def nodes_that_others_registered_travel(world: World) -> None:
    n = world.world_size
    node = Strict(torch.ones(n))
    tree = {"b": Plain([node, torch.ones(n)]), "a": torch.ones(n)}
    assert world.all_reduce(tree)["b"].x[0].x.tolist() == [n] * n
    assert world.broadcast(tree)["b"].x[0].x.tolist() == [1] * n
    assert world.all_gather(tree)["b"].x[0].x.tolist() == [1] * n * n
    assert world.reduce_scatter(node).x.tolist() == [n]
    assert world.all_to_all(Plain(node)).x.x.tolist() == [1] * n
    found = world.scatter(tree if world.rank == 0 else None)
    assert (found["b"].x[0].x.tolist(), found["a"].tolist()) == ([1], [1])
    assert world.all_reduce(Plain(node), async_op=True).wait().x.x.tolist() == [n] * n


class Plain:
    """A node of a library that says nothing of keys."""

    def __init__(self, x: Any) -> None:
        self.x = x


class Strict(Plain):
    """A node that takes a tensor and nothing else."""

    def __init__(self, x: Any) -> None:
        assert isinstance(x, torch.Tensor)
        super().__init__(x)


for node in (Plain, Strict):
    register_pytree_node(node, lambda b: ([b.x], None), lambda x, _, node=node: node(*x))


@CASES
def every_dtype_is_moved_bit_by_bit(world: World) -> None:
    n, last = world.world_size, world.world_size - 1
    for dtype in DTYPES:
        x = made(world.rank, (n, 3), dtype)
        all_bytes = [made(r, (n, 3), dtype).view(torch.uint8) for r in range(n)]
        moved = {
            "all_gather": (world.all_gather(x), torch.cat(all_bytes)),
            "broadcast": (world.broadcast(x, last), all_bytes[last]),
            "scatter": (world.scatter(x, last), all_bytes[last][world.rank][None]),
            "all_to_all": (
                world.all_to_all(x),
                torch.stack([each[world.rank] for each in all_bytes]),
            ),
        }
        for call, (found, truth) in moved.items():
            assert found.dtype == dtype
            same(found.view(torch.uint8), truth, (call, dtype))


@CASES
def lengths_may_differ_and_are_found_out_or_stated(world: World) -> None:
    n = world.world_size
    for sizes in (list(range(n)), [3] + [0] * (n - 1), [0] * n, [2] * n):
        parts = [made(r, (2, size, 3)) for r, size in enumerate(sizes)]
        mine, truth = parts[world.rank], torch.cat(parts, 1)
        same(world.all_gather(mine, 1), truth, sizes)
        same(world.all_gather(mine, -2, sizes=sizes), truth, sizes)
        found = world.gather(mine, 0, 1)
        if world.rank == 0:
            same(found, truth, sizes)
    same(world.all_gather(torch.ones(2), sizes="equal"), torch.ones(2 * n))


@CASES
def a_scalar_counts_as_one_row(world: World) -> None:
    n = world.world_size
    x, everyone = torch.tensor(float(world.rank)), torch.arange(float(n))
    for dim in (0, -1):
        same(world.all_gather(x, dim), everyone)
    found = world.gather(x, n - 1)
    if world.rank == n - 1:
        same(found, everyone)
    same(world.all_gather({"x": x, "y": x.int()}), {"x": everyone, "y": everyone.int()})


@CASES
def an_expanded_or_conjugate_input_is_moved_with_its_values(world: World) -> None:
    n = world.world_size
    z = torch.full((n,), complex(1, 2))
    lazy = z.conj()
    truth = torch.full((n,), complex(1, -2))
    same(world.all_gather(lazy), truth.repeat(n))
    same(world.broadcast(lazy), truth)
    same(world.scatter(lazy), truth[:1])
    same(world.all_to_all(lazy), truth)
    same(world.all_gather(lazy.imag), truth.imag.repeat(n))
    wide = torch.tensor([2.0]).expand(n, 3)
    same(world.all_gather(wide, 1), torch.full((n, 3 * n), 2.0))
    same(world.all_to_all(wide), torch.full((n, 3), 2.0))
    leaf = torch.ones(n, requires_grad=True)
    for found in (world.all_gather(leaf), world.broadcast(leaf), world.all_to_all(leaf)):
        assert not found.requires_grad


@CASES
def trees_travel_as_one_and_keep_their_structure(world: World) -> None:
    n = world.world_size
    for lengths in ([2] * n, list(range(n)), [0] * n):
        mine = tree_of(world.rank, lengths[world.rank])
        truth = joined([tree_of(r, length) for r, length in enumerate(lengths)])
        same(world.all_gather(mine), truth)
        same(world.all_gather(mine, sizes=lengths), truth)
        found = world.gather(mine, n - 1)
        same([found], [truth] if world.rank == n - 1 else [None])
        same(mine, tree_of(world.rank, lengths[world.rank]), "the input")
    of_all = [tree_of(r, 2 * n) for r in range(n)]
    mine = joined([tree_of(0, 2 * n)])
    scattered = world.scatter(mine if world.rank == 0 else None)
    same(scattered, tree_map(lambda x: x[2 * world.rank :][:2], of_all[0]))
    swapped = world.all_to_all(of_all[world.rank])
    same(swapped, joined([tree_map(lambda x: x[2 * world.rank :][:2], t) for t in of_all]))
    same(world.broadcast(of_all[world.rank], n - 1), of_all[n - 1])


@CASES
def an_empty_tree_comes_back(world: World) -> None:
    for tree in ([], {}, [(), {}]):
        for found in (world.all_gather(tree), world.all_to_all(tree), world.broadcast(tree)):
            same(found, tree)
        same([world.gather(tree)], [tree] if world.rank == 0 else [None])


@CASES
def leaves_are_known_by_their_key_not_by_their_order(world: World) -> None:
    pairs = [("a", torch.tensor([1.0])), ("b", torch.tensor([10.0]))]
    mixed = dict(pairs if world.rank == 0 else pairs[::-1])
    for call in (world.all_gather, world.broadcast, world.gather):
        try:
            found = call(mixed) or mixed
        except CollectiveMismatchError:
            continue  # to refuse it is as good: the values are not mixed up
        assert {k: set(v.tolist()) for k, v in found.items()} == {"a": {1.0}, "b": {10.0}}


@CASES
def scatter_cuts_along_any_dim_and_asks_the_root_alone(world: World) -> None:
    n = world.world_size
    shape = (n, 2 * n, 3 * n)
    for src in range(n):
        whole = made(src, shape)
        for dim in range(-3, 3):
            part = shape[dim] // n
            truth = whole.narrow(dim, world.rank * part, part)
            if world.rank != src:  # neither the tensor nor its dim is looked at here
                same(world.scatter(None, src, 99, sizes=[1]), truth, (src, dim))
                continue
            for name, x in list(views(whole))[-1:]:
                same(world.scatter(x, src, dim), truth, (src, dim, name))
                same(x, whole, "the input")


@CASES
def scatter_gives_parts_of_stated_sizes(world: World) -> None:
    n = world.world_size
    for sizes in (list(range(n)), [0] * (n - 1) + [2], [0] * n):
        whole = made(0, (2, sum(sizes)))
        truth = whole.narrow(1, sum(sizes[: world.rank]), sizes[world.rank])
        found = world.scatter(whole if world.rank == 0 else None, dim=1, sizes=sizes)
        same(found, truth, sizes)


@CASES
def all_to_all_swaps_parts_along_any_dim(world: World) -> None:
    n = world.world_size
    shape = (n, 2 * n, 3 * n)
    for dim in range(-3, 3):
        part = shape[dim] // n
        parts = [made(r, shape).narrow(dim, world.rank * part, part) for r in range(n)]
        for name, x in views(made(world.rank, shape)):
            before = x.clone()
            found = world.all_to_all(x, dim)
            same(found, torch.cat(parts, dim), (dim, name))
            assert found.is_contiguous()
            same(x, before, "the input")


@CASES
def all_to_all_takes_other_sizes_on_each_rank(world: World) -> None:
    n = world.world_size
    table = [[(3 * src + dst) % 4 for dst in range(n)] for src in range(n)]
    for sizes in (table, [[0] * n] * n, [[2] + [0] * (n - 1)] * n):
        parts = []
        for src in range(n):
            start = sum(sizes[src][: world.rank])
            whole = made(src, (2, sum(sizes[src])), torch.int16)
            parts.append(whole.narrow(1, start, sizes[src][world.rank]))
        mine = made(world.rank, (2, sum(sizes[world.rank])), torch.int16)
        same(world.all_to_all(mine, 1, sizes=sizes[world.rank]), torch.cat(parts, 1), sizes)
        pair = [mine.T, mine.T.double()]
        found = world.all_to_all(pair, sizes=sizes[world.rank])
        same(found, [torch.cat(parts, 1).T, torch.cat(parts, 1).T.double()], sizes)


@CASES
def broadcast_gives_the_roots_values_into_any_memory(world: World) -> None:
    for src in range(world.world_size):
        for shape in SHAPES:
            truth = made(src, shape)
            for name, x in views(made(world.rank, shape)):
                before = x.clone()
                same(world.broadcast(x, src), truth, (src, shape, name))
                for _, out in views(torch.full(shape, 9.0)):
                    assert world.broadcast(x, src, out=out) is out
                    same(out, truth, (src, shape, name))
                same(x, before, "the input")
                assert world.broadcast(x, src, out=x) is x
                same(x, truth, "in place")


@CASES
def broadcast_fills_a_tree_in_place(world: World) -> None:
    mine, truth = tree_of(world.rank, 2), tree_of(world.world_size - 1, 2)
    out = tree_of(0, 2)
    same(world.broadcast(mine, world.world_size - 1, out=out), truth)
    same(out, truth)
    same(mine, tree_of(world.rank, 2), "the input")
    world.broadcast(mine, world.world_size - 1, out=mine)
    same(mine, truth)
    parameter = torch.nn.Parameter(torch.tensor([float(world.rank)]))
    world.broadcast([parameter, torch.ones(2)], 0, out=[parameter, torch.ones(2)])
    same(parameter.detach(), torch.zeros(1))
    assert parameter.requires_grad


@CASES
def a_ring_of_sends_and_receives_moves_every_shape(world: World) -> None:
    n = world.world_size
    if n == 1:
        return  # nobody to send to
    after, before = (world.rank + 1) % n, (world.rank - 1) % n
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bool, torch.complex64):
            for name, x in views(made(world.rank, shape, dtype)):
                sending = world.send(x, after, async_op=True)
                same(world.recv(x, before), made(before, shape, dtype), (shape, name))
                sending.wait()
                same(x, made(world.rank, shape, dtype), "what was sent")
    memory = torch.full((4,), -1.0)
    sending = world.send(torch.ones(2), after, async_op=True)
    out = memory[::2]
    assert world.recv(torch.empty(2), before, out=out) is out
    sending.wait()
    same(memory, torch.tensor([1.0, -1.0] * 2))


@CASES
def tags_tell_two_messages_apart(world: World) -> None:
    if world.rank == 0 and world.world_size > 1:
        sent = [world.send(torch.tensor([i]), 1, tag=i, async_op=True) for i in (7, 8)]
        for each in sent:
            each.wait()
    elif world.rank == 1:
        for tag in (8, 7):
            same(world.recv(torch.tensor([0]), 0, tag=tag), torch.tensor([tag]))


@CASES
def two_messages_to_one_rank_come_in_the_order_of_the_receives(world: World) -> None:
    if world.rank == 0 and world.world_size > 1:
        for value in (1.0, 2.0):
            world.send(torch.tensor([value]), 1)
    elif world.rank == 1:
        first, second = (world.recv(torch.zeros(1), 0, async_op=True) for _ in range(2))
        found = second.wait().item(), first.wait().item()
        assert found == (2.0, 1.0), "which is waited for first does not matter"
