"""Who may call a group's collectives: one thread at a time, of the process that made it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest
import torch

from distrun import comm
from distrun.comm import World
from distrun.comm import functional as F
from distrun.testing import RanksFailed, run_ranks

pytestmark = pytest.mark.usefixtures("warm_ranks")
BACKENDS = pytest.mark.parametrize("backend", ["threads", "gloo"])


def in_threads(*calls: Callable[[], object], one_by_one: bool = False) -> None:
    threads = [threading.Thread(target=call, name=f"thread {i}") for i, call in enumerate(calls)]
    for thread in threads:
        thread.start()
        if one_by_one:
            thread.join()
    for thread in threads:
        thread.join()


def test_two_threads_of_a_rank_at_once_are_told() -> None:
    def fn(world: World) -> None:
        def call() -> None:
            for _ in range(50):
                world.all_reduce(torch.ones(1))

        in_threads(call, call)

    with pytest.raises(RanksFailed, match="two threads of this rank use the world at once"):
        run_ranks(fn, 3, "gloo", check=True)


def test_after_two_threads_at_once_every_rank_and_thread_has_an_error() -> None:
    def fn(world: World) -> list[str]:
        errors = []

        def call() -> None:
            try:
                for _ in range(200):
                    world.all_reduce(torch.ones(1))
            except comm.CommError as error:
                errors.append(str(error))

        in_threads(call, call)
        return errors

    found = run_ranks(fn, 2, "gloo", check=True)
    assert [len(errors) for errors in found] == [2, 2]
    # Which rank notices first is a race; the other one may only learn that the group is dead.
    said = [error for errors in found for error in errors]
    assert any("two threads of this rank use the world at once: thread" in e for e in said), said


def test_threads_in_another_order_on_another_rank_are_told() -> None:
    def fn(world: World) -> None:
        calls = [lambda k=k: world.all_reduce(torch.tensor(k)) for k in (1, 2)]
        threads = [threading.Thread(target=c, name=f"loader {i}") for i, c in enumerate(calls)]
        for thread in threads if world.rank == 0 else reversed(threads):
            thread.start()
            thread.join()

    with pytest.raises(RanksFailed, match="in different orders") as caught:
        run_ranks(fn, 2, "gloo", check=True)
    assert "in loader 0, then" in str(caught.value)


@BACKENDS
def test_threads_that_take_turns_are_no_error(backend: str) -> None:
    def fn(world: World) -> list[float]:
        found: list[float] = []

        def call() -> None:
            found.append(world.all_reduce(torch.ones(1)).item())

        for _ in range(3):
            call()
            in_threads(call, one_by_one=True)
        return found

    assert run_ranks(fn, 2, backend, check=True) == [[2.0] * 6] * 2


def test_a_thread_may_wait_for_a_handle_while_another_calls() -> None:
    def fn(world: World) -> list[float]:
        found: list[float] = []
        for _ in range(20):
            handle = world.all_reduce(torch.ones(1), async_op=True)
            waiting = threading.Thread(target=lambda h=handle: found.append(h.wait().item()))
            waiting.start()
            found.append(world.all_reduce(torch.ones(1)).item())
            waiting.join()
        return found

    assert run_ranks(fn, 2, "gloo", check=True) == [[2.0] * 40] * 2


def test_threads_with_a_group_each_are_no_error() -> None:
    def fn(world: World) -> list[float]:
        groups = [world.split([[0, 1]], name=name) for name in ("a", "b")]
        found: dict[int, float] = {}

        def call(k: int) -> None:
            group = groups[k]
            assert group is not None
            for _ in range(20):
                found[k] = group.all_reduce(torch.tensor(float(k))).item()

        in_threads(lambda: call(0), lambda: call(1))
        return [found[0], found[1]]

    assert run_ranks(fn, 2, "gloo", check=True) == [[0.0, 2.0]] * 2


def in_a_fork(call: Callable[[], object], world: World) -> str:
    reads, writes = os.pipe()
    if (pid := os.fork()) == 0:
        signal.alarm(20)
        try:
            os.write(writes, repr(call()).encode())
        except BaseException as error:
            os.write(writes, type(error).__name__.encode())
        world.close()
        os._exit(0)
    os.close(writes)
    said = os.read(reads, 1000).decode()
    os.close(reads)
    os.waitpid(pid, 0)
    return said


@pytest.mark.parametrize(("backend", "check"), [("threads", True), ("gloo", True), ("gloo", False)])
def test_a_forked_child_is_refused_at_once_and_its_parent_goes_on(
    backend: str, check: bool
) -> None:
    def fn(world: World) -> dict[str, str]:
        part, mesh = world.split([[0, 1]]), world.mesh({"dp": 2})
        handle = world.all_reduce(torch.ones(1), async_op=True)
        x = torch.ones(1)
        calls: dict[str, Callable[[], object]] = {
            "all_reduce": lambda: world.all_reduce(x),
            "all_gather_object": lambda: world.all_gather_object(1),
            "barrier": lambda: world.barrier(async_op=True),
            "send": lambda: world.send(x, 1 - world.rank),
            "recv": lambda: world.recv(x, 1 - world.rank),
            "split": lambda: world.split(0),
            "mesh": lambda: world.mesh({"dp": 2}),
            "rebuild": lambda: world.rebuild(),
            "group": lambda: world.group,
            "functional": lambda: F.all_reduce(x, world),
            "part": lambda: part and part.barrier(),
            "axis": lambda: mesh["dp"].all_gather(x),
            "wait": handle.wait,
        }
        if backend == "gloo":
            calls |= {"attach": comm.attach, "init": comm.init}
        found = {name: in_a_fork(call, world) for name, call in calls.items()}
        assert handle.wait() == 2
        assert world.all_reduce(x) == 2
        return found

    for found in run_ranks(fn, 2, backend, check=check):
        assert set(found.values()) == {"ForkedError"}, found


def test_a_child_of_a_forked_child_is_refused_too() -> None:
    def fn(world: World) -> str:
        return in_a_fork(lambda: in_a_fork(lambda: world.all_reduce(torch.ones(1)), world), world)

    assert run_ranks(fn, 1, "gloo") == ["'ForkedError'"]
