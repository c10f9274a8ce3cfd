"""Calls of equal shapes in swapped order: what checked mode sees by the lines of code."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from distrun.comm import CollectiveMismatchError, World, functional
from distrun.testing import RanksFailed, run_ranks


def swapped(world: World) -> None:
    a, b = torch.ones(2), torch.ones(2)
    for name in "ab" if world.rank else "ba":
        if name == "a":
            world.all_reduce(a)
        else:
            world.all_reduce(b)


def swapped_around_a_common_call(world: World) -> None:
    a, b = torch.ones(2), torch.ones(2)
    for name in "acb" if world.rank else "bca":
        if name == "a":
            world.all_reduce(a)
        elif name == "b":
            world.all_reduce(b)
        else:
            world.all_gather(a)


def swapped_around_a_broadcast_from_two_branches(world: World) -> None:
    a, b = torch.ones(2), torch.ones(2)
    for name in "acb" if world.rank else "bca":
        if name == "a":
            world.all_reduce(a)
        elif name == "b":
            world.all_reduce(b)
        elif world.rank == 0:
            world.broadcast(a)
        else:
            world.broadcast(b)


def swapped_in_functional(world: World) -> None:
    a, b = torch.ones(2), torch.ones(2)
    for name in "ab" if world.rank else "ba":
        if name == "a":
            functional.all_reduce(a, world)
        else:
            functional.all_reduce(b, world)


@pytest.mark.parametrize(
    "fn",
    [
        swapped,
        swapped_around_a_common_call,
        swapped_around_a_broadcast_from_two_branches,
        swapped_in_functional,
    ],
)
def test_a_swap_is_told_at_the_call_that_completes_it(fn: Callable[[World], None]) -> None:
    with pytest.raises(RanksFailed, match="in different orders") as caught:
        run_ranks(fn, 3)
    assert all(isinstance(f.error, CollectiveMismatchError) for f in caught.value.failures)
    assert "test_order.py:" in str(caught.value)


def barriers_from_two_branches(world: World) -> None:
    for owner in range(3):
        if world.rank == owner % 2:
            world.barrier()
        else:
            world.barrier()


def broadcasts_from_two_branches(world: World) -> None:
    for owner in range(4):
        if world.rank == owner % 2:
            world.broadcast(torch.ones(2), src=owner % 2)
        else:
            world.broadcast(torch.zeros(2), src=owner % 2)


def one_rank_always_on_another_line(world: World) -> None:
    for _ in range(100):
        if world.rank == 0:
            world.all_reduce(torch.ones(2))
        else:
            world.all_reduce(torch.zeros(2))


@pytest.mark.parametrize(
    "fn",
    [barriers_from_two_branches, broadcasts_from_two_branches, one_rank_always_on_another_line],
)
def test_calls_from_different_lines_are_no_swap(fn: Callable[[World], None]) -> None:
    run_ranks(fn, 2)


def test_the_line_of_a_call_in_functional_is_the_users() -> None:
    def fn(world: World) -> None:
        functional.all_reduce(torch.ones(2 + world.rank), world)

    with pytest.raises(RanksFailed, match="made different calls") as caught:
        run_ranks(fn, 2)
    assert f"at test_order.py:{fn.__code__.co_firstlineno + 1}" in str(caught.value)


def test_trees_with_other_keys_show_them() -> None:
    def fn(world: World) -> None:
        world.all_reduce({"a": torch.ones(1), "bc"[world.rank]: torch.ones(1)})

    with pytest.raises(RanksFailed) as caught:
        run_ranks(fn, 2)
    assert "['a']: float32[1]; ['b']: float32[1]" in str(caught.value)
    assert "['a']: float32[1]; ['c']: float32[1]" in str(caught.value)
