"""all_reduce, reduce and reduce_scatter against what torch makes of all inputs at once."""

from __future__ import annotations

import math
import operator
from functools import reduce

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from distrun.comm import CollectiveMismatchError, World
from tests.unit.comm.collective_cases import SHAPES, Cases, Pair, close, made, same, views

CASES = Cases()
INTEGER_OPS = {
    "sum": operator.add,
    "prod": operator.mul,
    "max": torch.maximum,
    "min": torch.minimum,
    "band": operator.and_,
    "bor": operator.or_,
    "bxor": operator.xor,
}


def total(world: World, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the sum of what all ranks give."""
    return reduce(operator.add, [made(r, shape, dtype) for r in range(world.world_size)])


@CASES
def each_op_combines_integers_element_by_element(world: World) -> None:
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        inputs = [made(r, (7,), dtype) for r in range(world.world_size)]
        for op, combine in INTEGER_OPS.items():
            same(world.all_reduce(inputs[world.rank], op), reduce(combine, inputs), (op, dtype))


@CASES
def each_op_combines_floats_element_by_element(world: World) -> None:
    n = world.world_size
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        inputs = [made(r, (7,), dtype) for r in range(n)]
        for op in ("sum", "prod", "max", "min"):
            truth = reduce(INTEGER_OPS[op], inputs)
            same(world.all_reduce(inputs[world.rank], op), truth, (op, dtype))
        mean = reduce(operator.add, inputs) / n
        for alias in ("mean", "avg"):
            close(world.all_reduce(inputs[world.rank], alias), mean)


@CASES
def unsigned_integers_above_the_middle_stay_what_they_are(world: World) -> None:
    for dtype in (torch.uint16, torch.uint32, torch.uint64):
        top = torch.iinfo(dtype).max
        x = torch.tensor([top - world.rank, world.rank], dtype=dtype)
        last = world.world_size - 1
        same(world.all_reduce(x, "max"), torch.tensor([top, last], dtype=dtype), dtype)
        same(world.all_reduce(x, "min"), torch.tensor([top - last, 0], dtype=dtype), dtype)
        wrapped = sum(top - r for r in range(last + 1)) % (top + 1)
        sums = torch.tensor([wrapped, sum(range(last + 1))], dtype=dtype)
        same(world.all_reduce(x, "sum"), sums, dtype)


@CASES
def bools_have_or_and_and_xor(world: World) -> None:
    n = world.world_size
    x = torch.tensor([True, False, world.rank == 0, world.rank > 0])
    either, both = torch.tensor([True, False, True, n > 1]), torch.tensor([True, False, n == 1, 0])
    for op in ("sum", "max", "bor"):
        same(world.all_reduce(x, op), either, op)
    for op in ("prod", "min", "band"):
        same(world.all_reduce(x, op), both.bool(), op)
    odd = torch.tensor([n % 2, 0, 1, (n - 1) % 2]).bool()
    same(world.all_reduce(x, "bxor"), odd)
    same(world.reduce_scatter(x.repeat(n), op="bxor"), odd)


@CASES
def one_nan_wins_the_max_and_the_min(world: World) -> None:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        for who in range(world.world_size):
            x = torch.tensor([1.0, -math.inf, math.inf], dtype=dtype)
            x[0] = math.nan if world.rank == who else x[0]
            same(world.all_reduce(x, "max"), torch.tensor([math.nan, -math.inf, math.inf]).to(x))
            same(world.all_reduce(x, "min"), torch.tensor([math.nan, -math.inf, math.inf]).to(x))


@CASES
def a_zero_below_zero_and_a_subnormal_survive(world: World) -> None:
    tiny = torch.finfo(torch.float32).smallest_normal / 4
    x = torch.tensor([-0.0, tiny, 0.0 if world.rank else -0.0])
    only = torch.tensor([-0.0, tiny, 0.0 if world.world_size > 1 else -0.0])
    same(world.all_reduce(x, "max"), only)
    same(world.all_reduce(x, "min"), torch.tensor([-0.0, tiny, -0.0]))


@CASES
def complex_numbers_are_added_and_averaged(world: World) -> None:
    n = world.world_size
    for dtype in (torch.complex64, torch.complex128):
        x = torch.tensor([complex(world.rank, 1), 2 - 3j], dtype=dtype)
        whole = torch.tensor([complex(sum(range(n)), n), n * (2 - 3j)], dtype=dtype)
        same(world.all_reduce(x), whole)
        same(world.all_reduce(x.conj()), whole.conj().resolve_conj())
        same(world.all_reduce(x.conj().imag), -whole.imag, "a negative view")
        close(world.all_reduce(x, "mean"), whole / n)
        same(world.reduce_scatter(x.repeat(n, 1).conj()), whole.conj().resolve_conj()[None])


@CASES
def any_shape_and_strides_reduce_alike_and_the_input_stays(world: World) -> None:
    for shape in SHAPES:
        truth = total(world, shape)
        for name, x in views(made(world.rank, shape)):
            before = x.clone()
            found = world.all_reduce(x)
            same(found, truth, (shape, name))
            assert found.is_contiguous()
            on_root = world.reduce(x, dst=world.world_size - 1)
            assert (on_root is None) == (world.rank != world.world_size - 1)
            if on_root is not None:
                same(on_root, truth, (shape, name))
            same(x, before, "the input")


@CASES
def an_expanded_input_is_read_and_left_alone(world: World) -> None:
    n = world.world_size
    x = torch.tensor([float(world.rank)]).expand(2, 3)
    same(world.all_reduce(x), torch.full((2, 3), float(sum(range(n)))))
    same(world.reduce_scatter(x[:1].expand(n, 3)), torch.full((1, 3), float(sum(range(n)))))
    same(x, torch.full((2, 3), float(world.rank)))


@CASES
def out_takes_the_result_and_is_what_is_returned(world: World) -> None:
    for shape in SHAPES:
        truth = total(world, shape)
        for name, x in views(made(world.rank, shape)):
            before = x.clone()
            for other_name, out in views(torch.full(shape, 9.0)):
                assert world.all_reduce(x, out=out) is out
                same(out, truth, (shape, name, other_name))
                same(x, before, "the input")
            assert world.all_reduce(x, out=x) is x
            same(x, truth, (shape, name, "in place"))


@CASES
def in_place_works_for_every_way_to_travel(world: World) -> None:
    n = world.world_size
    for dtype in (torch.int16, torch.uint64, torch.bfloat16, torch.complex64, torch.float64):
        for _, x in views(made(world.rank, (2, 3), dtype)):
            assert world.all_reduce_(x) is x
            truth = [made(r, (2, 3)).double() for r in range(n)]
            same(x, reduce(operator.add, truth).to(dtype), dtype)
    for op in ("max", "min"):
        y = torch.tensor([float(world.rank), -0.0])
        assert world.all_reduce_(y, op) is y
        same(y, torch.tensor([float(n - 1 if op == "max" else 0), -0.0]))
    flag = torch.tensor([world.rank == 0, False])
    same(world.all_reduce_(flag), torch.tensor([True, False]))
    z = torch.tensor([complex(1, 2)]).conj()
    same(world.all_reduce_(z).resolve_conj(), torch.tensor([complex(n, -2 * n)]))


@CASES
def the_rest_of_the_memory_of_a_strided_out_stays(world: World) -> None:
    memory = torch.full((6,), -1.0)
    world.all_reduce(torch.ones(3), out=memory[::2])
    same(memory, torch.tensor([1.0, -1.0] * 3) * torch.tensor([world.world_size, 1] * 3))


@CASES
def a_leaf_with_gradients_gives_a_result_without(world: World) -> None:
    n = world.world_size
    leaf = torch.ones(2, n, requires_grad=True)
    results = [world.all_reduce(leaf), world.reduce_scatter(leaf, 1), world.all_reduce(leaf * 1)]
    results += [r for r in [world.reduce(torch.nn.Parameter(torch.ones(2, n)))] if r is not None]
    for result in results:
        assert not result.requires_grad
        same(result, torch.full(result.shape, float(n)))
    same(leaf.detach(), torch.ones(2, n))
    assert world.all_reduce(leaf, out=leaf) is leaf
    same(leaf.detach(), torch.full((2, n), float(n)))
    assert leaf.is_leaf
    assert leaf.requires_grad


@CASES
def trees_keep_their_structure(world: World) -> None:
    n = world.world_size

    def tree(rank: int) -> list[object]:
        half, whole = made(rank, (3,), torch.bfloat16), made(rank, (2, 2), torch.int16)
        strided = made(rank, (2, 3)).T
        return [{"b": half, "a": [whole, ()]}, Pair(strided, {}), (made(rank, ()),)]

    def summed(*leaves: Tensor) -> Tensor:
        return reduce(operator.add, leaves)

    truth = tree_map(summed, *[tree(r) for r in range(n)])
    mine = tree(world.rank)
    same(world.all_reduce(mine), truth)
    same(mine, tree(world.rank), "the input")
    out = tree_map(torch.zeros_like, mine)
    same(world.all_reduce(mine, out=out), truth)
    same(out, truth)
    same(world.all_reduce_(mine), truth)
    same(mine, truth, "in place")


@CASES
def an_empty_tree_comes_back(world: World) -> None:
    for tree in ([], {}, (), [{}, ()]):
        same(world.all_reduce(tree), tree)
        same(world.reduce_scatter(tree), tree)
        same(world.all_reduce(tree, async_op=True).wait(), tree)


@CASES
def complex_leaves_travel_beside_real_ones(world: World) -> None:
    n = world.world_size
    tree = {"odd": torch.ones(3), "complex": torch.full((n,), 1 + 2j, dtype=torch.complex64)}
    same(world.all_reduce(tree), {"odd": 1.0 * n * tree["odd"], "complex": n * tree["complex"]})
    rows = {"odd": torch.ones(n, 3), "complex": tree["complex"]}
    same(
        world.reduce_scatter(rows),
        {"odd": torch.full((1, 3), float(n)), "complex": n * tree["complex"][:1]},
    )


@CASES
def leaves_are_known_by_their_key_not_by_their_order(world: World) -> None:
    pairs = [("a", torch.tensor([1.0])), ("b", torch.tensor([10.0]))]
    mixed = dict(pairs if world.rank == 0 else pairs[::-1])
    n = world.world_size
    try:
        found = world.all_reduce(mixed)
    except CollectiveMismatchError:
        return  # to refuse it is as good: the values are not mixed up
    assert {k: v.item() for k, v in found.items()} == {"a": 1.0 * n, "b": 10.0 * n}


@CASES
def reduce_leaves_the_result_on_the_root_alone(world: World) -> None:
    n = world.world_size
    for dst in range(n):
        for op, truth in (("sum", sum(range(n))), ("max", n - 1), ("mean", sum(range(n)) / n)):
            found = world.reduce(torch.tensor([float(world.rank)]), dst, op)
            if world.rank == dst:
                close(found, torch.tensor([float(truth)]))
            else:
                assert found is None


@CASES
def reduce_scatter_cuts_the_sum_along_any_dim(world: World) -> None:
    n = world.world_size
    shape = (n, 2 * n, 3 * n)
    whole = total(world, shape)
    for dim in range(-3, 3):
        part = shape[dim] // n
        for name, x in views(made(world.rank, shape)):
            before = x.clone()
            found = world.reduce_scatter(x, dim)
            same(found, whole.narrow(dim, world.rank * part, part), (dim, name))
            assert found.is_contiguous()
            same(x, before, "the input")


@CASES
def reduce_scatter_gives_parts_of_stated_sizes(world: World) -> None:
    n = world.world_size
    for sizes in ([2] * n, list(range(n)), [0] * (n - 1) + [3], [0] * n):
        shape = (2, sum(sizes))
        start = sum(sizes[: world.rank])
        truth = total(world, shape).narrow(1, start, sizes[world.rank])
        same(world.reduce_scatter(made(world.rank, shape), 1, sizes=sizes), truth, sizes)
    tree = {"a": made(world.rank, (n + 1, 2)), "b": made(world.rank, (n + 1,), torch.int16)}
    sizes = [2] + [1] * (n - 1)
    start, length = world.rank + (world.rank > 0), sizes[world.rank]
    truth = {
        "a": total(world, (n + 1, 2)).narrow(0, start, length),
        "b": total(world, (n + 1,), torch.int16).narrow(0, start, length),
    }
    same(world.reduce_scatter(tree, sizes=sizes), truth)


@CASES
def reduce_scatter_knows_the_other_ops(world: World) -> None:
    n = world.world_size
    x = torch.arange(2.0 * n) + world.rank
    mine = torch.arange(2.0) + 2 * world.rank
    for op, shift in (("max", n - 1), ("min", 0), ("mean", sum(range(n)) / n)):
        close(world.reduce_scatter(x, op=op), mine + shift)
    y = x.to(torch.int16)
    same(world.reduce_scatter(y, op="max"), (mine + n - 1).to(torch.int16))
