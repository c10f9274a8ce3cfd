"""The async form of every collective: the same result, once, whenever it is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from distrun.comm import Handle, World
from tests.unit.comm.collective_cases import Cases, made, same

CASES = Cases()


def calls(world: World) -> dict[str, Callable[..., Any]]:
    """Return every collective that can be async, each with a good input."""
    n = world.world_size
    x = made(world.rank, (n, 2))
    tree = {"a": x, "b": x.to(torch.int16)}
    return {
        "all_reduce": lambda **how: world.all_reduce(x, "max", **how),
        "all_reduce of a tree": lambda **how: world.all_reduce(tree, **how),
        "all_reduce out": lambda **how: world.all_reduce(x, out=torch.empty(2, n).T, **how),
        "reduce": lambda **how: world.reduce(x, n - 1, "mean", **how),
        "reduce_scatter": lambda **how: world.reduce_scatter(x, **how),
        "all_gather": lambda **how: world.all_gather(x, 1, **how),
        "all_gather uneven": lambda **how: world.all_gather(x[: world.rank], **how),
        "gather": lambda **how: world.gather(tree, n - 1, **how),
        "scatter": lambda **how: world.scatter(x if world.rank == 0 else None, **how),
        "all_to_all": lambda **how: world.all_to_all(x, **how),
        "all_to_all of a tree": lambda **how: world.all_to_all(tree, **how),
        "broadcast": lambda **how: world.broadcast(x, n - 1, **how),
        "broadcast of a tree": lambda **how: world.broadcast(tree, n - 1, **how),
        "barrier": lambda **how: world.barrier(**how),
    }


@CASES
def a_handle_gives_what_the_call_returns_again_and_again(world: World) -> None:
    for name, call in calls(world).items():
        truth = call()
        handle = call(async_op=True)
        assert type(handle) is Handle, name
        found = handle.wait()
        same([found], [truth], name)
        assert handle.wait() is found, name
        assert handle.result is found, name
        assert handle.done(), name
        assert repr(handle).endswith(": waited for>"), name


@CASES
def handles_may_be_waited_for_in_any_order(world: World) -> None:
    truths = {name: call() for name, call in calls(world).items()}
    handles = {name: call(async_op=True) for name, call in calls(world).items()}
    for name in reversed(handles):
        same([handles[name].result], [truths[name]], name)


@CASES
def an_input_may_change_once_the_call_is_waited_for(world: World) -> None:
    x = torch.ones(3)
    handle = world.all_reduce(x, async_op=True)
    found = handle.wait()
    x.zero_()
    same(found, torch.full((3,), float(world.world_size)))


@CASES
def an_async_call_in_place_fills_its_out(world: World) -> None:
    x = torch.ones(2, 3).T
    handle = world.all_reduce(x, out=x, async_op=True)
    assert handle.wait() is x
    same(x, torch.full((3, 2), float(world.world_size)))


@CASES
def who_asks_again_and_again_whether_it_is_done_hears_yes_in_the_end(world: World) -> None:
    handle = world.all_reduce(torch.ones(2), async_op=True)
    heard = polled(handle)
    handle.wait()
    assert world.all_gather_object(heard) == [True] * world.world_size


@CASES
def a_message_that_has_come_is_done(world: World) -> None:
    handle = None
    if world.rank == 0 and world.world_size > 1:
        world.send(torch.ones(1), 1)
    elif world.rank == 1:
        handle = world.recv(torch.zeros(1), 0, async_op=True)
    world.barrier()
    heard = handle is None or polled(handle)
    if handle is not None:
        handle.wait()
    assert all(world.all_gather_object(heard))


def polled(handle: Handle[Any]) -> bool:
    """Ask until it is done, for a second at most."""
    deadline = time.monotonic() + 1
    while not handle.done() and time.monotonic() < deadline:
        time.sleep(0.001)  # the clock only paces the asking
    return handle.done()
