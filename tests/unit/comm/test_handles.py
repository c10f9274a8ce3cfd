"""Handles that nobody waits for, and handles of a group that dies."""

from __future__ import annotations

import warnings

import pytest
import torch

from distrun.comm import GroupDeadError, UnwaitedHandleWarning, World
from distrun.testing import run_ranks

pytestmark = pytest.mark.usefixtures("warm_ranks")
BACKENDS = ["threads", "gloo"]


def drops_two(world: World) -> None:
    world.all_gather(
        torch.ones(1),
        async_op=True,
    )
    handle = world.barrier(async_op=True)
    del handle


FIRST = drops_two.__code__.co_firstlineno + 1
LINES = {"all_gather": FIRST, "barrier": FIRST + 4}


def heard(world: World) -> list[tuple[str, str, int]]:
    """Drop handles; return what was warned of, and of which line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drops_two(world)
    assert all(w.category is UnwaitedHandleWarning for w in caught)
    return [(str(w.message), w.filename, w.lineno) for w in caught]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_handle_that_is_dropped_warns_of_the_line_that_made_it(backend: str) -> None:
    said = "the handle of an async {} was dropped without wait(): its result may be incomplete"
    wanted = [(said.format(call), __file__, line) for call, line in LINES.items()]
    assert run_ranks(heard, 1, backend) == [wanted]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_rank_warns_for_itself(world_size: int) -> None:
    with pytest.warns(UnwaitedHandleWarning, match="was dropped without wait") as caught:
        run_ranks(drops_two, world_size)
    assert {w.filename for w in caught} == {__file__}
    assert sorted(w.lineno for w in caught) == sorted([*LINES.values()] * world_size)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_handle_that_is_waited_for_warns_of_nothing(world_size: int) -> None:
    def wait_for_all(world: World) -> None:
        world.all_reduce(torch.ones(1), async_op=True).wait()
        _ = world.all_reduce(torch.ones(1), async_op=True).result

    run_ranks(wait_for_all, world_size)  # a warning is an error here


def test_a_handle_tells_what_it_is_of_and_how_far_it_is() -> None:
    def shown(world: World) -> list[str]:
        handle = world.all_gather(torch.ones(1), async_op=True)
        before = repr(handle)
        handle.wait()
        return [before, repr(handle)]

    line = shown.__code__.co_firstlineno + 1
    ((before, after),) = run_ranks(shown, 1)
    assert before == f"<Handle of all_gather at test_handles.py:{line}: done>"
    assert after == f"<Handle of all_gather at test_handles.py:{line}: waited for>"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_handle_of_a_group_that_died_says_so_each_time(backend: str) -> None:
    def wait_twice(world: World) -> list[str]:
        if world.rank == 1:
            return []
        handle = world.all_reduce(torch.ones(1), async_op=True)
        said = []
        for _ in range(2):
            try:
                handle.wait()
            except GroupDeadError as error:
                said.append(error.message)
        return said

    said = run_ranks(wait_twice, 2, backend, check=False, comm_timeout_s=10)[0]
    assert len(said) == 2
    for message in said:
        assert message.startswith("all_reduce on rank 0 of the world failed, and the group is dead")
