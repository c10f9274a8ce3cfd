"""`run_ranks`: results, failures, hangs, output and faults, on threads and in processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from distrun import comm
from distrun.comm import GroupDeadError, RankLeftError, World
from distrun.errors import UsageError
from distrun.testing import RanksFailed, RanksTimedOut, faults, run_ranks

pytestmark = pytest.mark.usefixtures("warm_ranks")
BACKENDS = pytest.mark.parametrize("backend", ["threads", "gloo"])


@BACKENDS
def test_results_come_in_rank_order(backend: str) -> None:
    offset = torch.tensor([10])  # what a function refers to travels with it

    def fn(world: World) -> tuple[int, list[int]]:
        return world.rank, (world.all_reduce(torch.tensor([world.rank])) + offset).tolist()

    assert run_ranks(fn, 3, backend) == [(0, [13]), (1, [13]), (2, [13])]


@BACKENDS
def test_the_first_failure_comes_first_and_each_rank_shows_its_own(backend: str) -> None:
    def fn(world: World) -> None:
        if world.rank == 1:
            raise ValueError(f"no, says rank {world.rank}")
        world.barrier()

    with pytest.raises(RanksFailed) as caught:
        run_ranks(fn, 3, backend)
    assert caught.value.first.rank == 1
    assert isinstance(caught.value.first.error, ValueError)
    assert {f.rank for f in caught.value.failures} == {0, 1, 2}
    assert all(isinstance(f.error, RankLeftError) for f in caught.value.failures[1:])
    text = str(caught.value)
    assert "ValueError: no, says rank 1 (rank 1 was the first; 3 of 3 ranks failed)" in text
    assert 'raise ValueError(f"no, says rank {world.rank}")' in text
    assert "it raised ValueError: no, says rank 1" in text  # what the others were told
    assert "distrun/comm/group.py" not in text  # the user's frames alone


@BACKENDS
def test_a_hang_ends_at_the_timeout_with_every_ranks_stack(backend: str) -> None:
    def fn(world: World) -> None:
        if world.rank == 1:
            while True:
                time.sleep(0.01)
        world.barrier()

    began = time.monotonic()
    with pytest.raises(RanksTimedOut, match="2 of 2 ranks did not finish within 1 s") as caught:
        run_ranks(fn, 2, backend, timeout_s=1)
    assert time.monotonic() - began < 10
    line = fn.__code__.co_firstlineno
    assert f'test_run_ranks.py", line {line + 3}' in str(caught.value)  # rank 1: sleep
    assert f'test_run_ranks.py", line {line + 4}' in str(caught.value)  # rank 0: barrier


def test_a_deadlock_of_threads_is_known_at_once() -> None:
    def fn(world: World) -> None:
        world.recv(torch.ones(1), src=1 - world.rank)

    began = time.monotonic()
    with pytest.raises(RanksFailed, match="every rank waits for another"):
        run_ranks(fn, 2, timeout_s=60)
    assert time.monotonic() - began < 30


def test_threads_take_turns_in_the_same_order_every_time() -> None:
    def order() -> list[int]:
        seen: list[int] = []

        def fn(world: World) -> None:
            for _ in range(5):
                seen.append(world.rank)
                world.all_reduce(torch.ones(1))

        run_ranks(fn, 4)
        return seen

    assert order() == order() == order()


def test_threads_have_random_numbers_of_their_own() -> None:
    def fn(world: World) -> list[float]:
        torch.manual_seed(world.rank)
        world.barrier()
        first = torch.rand(1).item()
        world.barrier()
        return [first, torch.rand(1).item()]

    def alone(rank: int) -> list[float]:
        generator = torch.Generator().manual_seed(rank)
        return [torch.rand(1, generator=generator).item() for _ in range(2)]

    state = torch.get_rng_state()
    assert run_ranks(fn, 3) == [alone(0), alone(1), alone(2)]
    assert torch.equal(torch.get_rng_state(), state)  # the caller's are untouched


@BACKENDS
def test_ranks_draw_different_random_numbers_unless_they_seed_alike(backend: str) -> None:
    def fn(world: World) -> list[tuple[float, ...]]:
        def draw() -> tuple[float, ...]:
            first = torch.rand(1).item(), random.random(), np.random.rand()
            world.barrier()
            return *first, torch.rand(1).item(), random.random(), np.random.rand()

        unseeded = draw()
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        return [unseeded, draw()]

    ranks = run_ranks(fn, 3, backend)
    for numbers in zip(*(unseeded for unseeded, _ in ranks), strict=True):
        assert len(set(numbers)) == 3
    assert len({seeded for _, seeded in ranks}) == 1


def test_a_seed_of_the_caller_makes_threads_draw_the_same_again() -> None:
    def fn(world: World) -> float:
        return torch.rand(1).item()

    def seeded() -> list[float]:
        torch.manual_seed(7)
        return run_ranks(fn, 2)

    before = torch.get_rng_state(), random.getstate()
    assert seeded() == seeded()
    random_after = random.getstate()
    assert random_after == before[1]
    torch.set_rng_state(before[0])


@BACKENDS
def test_a_function_that_only_makes_a_coroutine_fails(backend: str) -> None:
    async def fn(world: World) -> None:
        raise AssertionError

    with pytest.raises(RanksFailed, match="returned a coroutine, so its body did not run"):
        run_ranks(fn, 2, backend)


@BACKENDS
def test_what_ranks_print_has_the_rank_before_each_line(
    backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fn(world: World) -> None:
        print("one", end="\n")
        world.barrier()
        print("two", end="")

    run_ranks(fn, 2, backend)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == ["[rank 0] one", "[rank 0] two", "[rank 1] one", "[rank 1] two"]


def test_threads_leave_nothing_behind() -> None:
    before, out = threading.active_count(), sys.stdout
    run_ranks(lambda world: world.barrier(), 8)
    assert threading.active_count() == before
    assert sys.stdout is out


def test_processes_are_forked_from_one_that_has_imported_torch() -> None:
    def fn(world: World) -> tuple[int, bool]:
        return os.getppid(), "torch" in sys.modules

    (first, has_torch), (second, _) = run_ranks(fn, 2, "gloo")
    ((third, _),) = run_ranks(fn, 1, "gloo")
    assert first == second == third != os.getpid()
    assert has_torch


def test_processes_see_the_callers_environment_and_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOME_SETTING", "of the caller")
    monkeypatch.chdir(tmp_path)
    fn = lambda world: (os.environ.get("SOME_SETTING"), str(Path.cwd()))  # noqa: E731
    assert run_ranks(fn, 1, "gloo") == [("of the caller", str(tmp_path))]


def test_a_result_that_cannot_be_pickled_is_said_so() -> None:
    with pytest.raises(RanksFailed, match="pickle"):
        run_ranks(lambda world: threading.Lock(), 1, "gloo")


def test_a_function_that_cannot_be_pickled_is_said_so() -> None:
    lock = threading.Lock()
    with pytest.raises(UsageError, match="cannot be pickled") as caught:
        run_ranks(lambda world: lock, 1, "gloo")
    assert 'backend="threads"' in caught.value.hint


def test_an_exception_that_cannot_be_pickled_arrives_as_its_text() -> None:
    def fn(world: World) -> None:
        class Awkward(Exception):
            def __init__(self, one: int, two: int) -> None:
                super().__init__(f"{one} and {two}")

        raise Awkward(1, 2)

    with pytest.raises(RanksFailed, match="Awkward: 1 and 2"):
        run_ranks(fn, 1, "gloo")


def test_a_rank_that_exits_is_told_with_what_it_printed_last() -> None:
    def fn(world: World) -> None:
        print("last words", flush=True)
        os._exit(3)

    with pytest.raises(RanksFailed, match="ended with exit code 3") as caught:
        run_ranks(fn, 1, "gloo")
    assert "last words" in str(caught.value)


@BACKENDS
def test_a_killed_rank_is_noticed_by_the_others(backend: str) -> None:
    with pytest.raises(RanksFailed) as caught:
        run_ranks(lambda world: world.barrier(), 3, backend, faults=[faults.kill(1)])
    assert caught.value.first.rank == 1
    assert "kill" in caught.value.first.what.lower()
    others = [f.error for f in caught.value.failures[1:]]
    assert all(isinstance(error, RankLeftError | GroupDeadError) for error in others)
    assert all("rank 1" in str(error) for error in others)


@BACKENDS
def test_a_corrupted_result_is_wrong_on_one_rank_alone(backend: str) -> None:
    def fn(world: World) -> float:
        return world.broadcast(torch.ones(3))[0].item()

    found = run_ranks(fn, 3, backend, faults=[faults.corrupt(2)])
    assert found[:2] == [1.0, 1.0]
    assert found[2] != 1.0


@BACKENDS
def test_a_corrupted_input_is_wrong_on_every_rank_alike(backend: str) -> None:
    def fn(world: World) -> list[float]:
        with faults.corrupt(1, where="input", at=2).on(world):
            right = world.all_reduce(torch.ones(1))
            wrong = world.all_reduce(torch.ones(1))
        return [right.item(), wrong.item(), world.all_reduce(torch.ones(1)).item()]

    assert run_ranks(fn, 2, backend) == [[2.0, 0.0, 2.0]] * 2  # the sign bit: 1 + -1


@BACKENDS
def test_a_delayed_rank_is_waited_for(backend: str) -> None:
    def fn(world: World) -> float:
        began = time.monotonic()
        world.all_reduce(torch.ones(1))
        return time.monotonic() - began

    assert min(run_ranks(fn, 2, backend, faults=[faults.delay(1, 0.3)])) > 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"world_size": 0}, "world_size=0 is outside the range from 1 to 256"),
        ({"world_size": 2.5}, "world_size=2.5"),
        ({"world_size": 1000}, "from 1 to 256"),
        ({"backend": "mpi"}, "backend='mpi' is not one of threads, gloo, nccl"),
        ({"timeout_s": 0}, "timeout_s=0 is not a time"),
        ({"timeout_s": float("inf")}, "timeout_s=inf is not a time"),
        ({"comm_timeout_s": -1}, "comm_timeout_s=-1 is not a time"),
        ({"faults": [faults.kill(2)]}, "rank 2, the ranks are 0 to 1"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_ranks(lambda world: None, **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_nccl_without_gpus_is_refused() -> None:
    with pytest.raises(UsageError, match="needs one GPU per rank, there are 0 GPUs for 2 ranks"):
        run_ranks(lambda world: None, 2, "nccl")


@BACKENDS
def test_a_rank_has_its_world_and_cannot_make_another(backend: str) -> None:
    def fn(world: World) -> None:
        with pytest.raises(comm.CommUsageError, match="was passed its world"):
            comm.init()

    run_ranks(fn, 2, backend)


def test_ranks_inside_of_threads_as_ranks_are_refused() -> None:
    def fn(world: World) -> None:
        with pytest.raises(comm.CommUsageError, match="rank of another run_ranks"):
            run_ranks(lambda inner: None, 2)

    run_ranks(fn, 2)


def test_code_that_uses_torch_distributed_works_in_processes() -> None:
    def fn(world: World) -> float:
        import torch.distributed as dist

        x = torch.ones(1)
        dist.all_reduce(x)
        return x.item()

    assert run_ranks(fn, 2, "gloo") == [2.0, 2.0]


@BACKENDS
def test_a_fault_that_never_occurs_fails_the_run(backend: str) -> None:
    with pytest.raises(RanksFailed, match="never occurred: that rank sent 1 messages"):
        run_ranks(lambda world: world.barrier(), 2, backend, faults=[faults.delay(1, 0, at=9)])


@BACKENDS
def test_a_fault_reaches_the_parts_of_a_group_too(backend: str) -> None:
    def fn(world: World) -> float:
        half = world.split([[0, 1]])
        assert half is not None
        return half.broadcast(torch.ones(1)).item()

    assert run_ranks(fn, 2, backend, check=False, faults=[faults.corrupt(1)]) == [1.0, -1.0]


def test_a_stopped_rank_is_a_timeout_too() -> None:
    def fn(world: World) -> None:
        if world.rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        world.barrier()

    with pytest.raises(RanksTimedOut, match="it wrote no stack"):
        run_ranks(fn, 2, "gloo", timeout_s=1)


def test_runs_from_several_threads_take_turns() -> None:
    found: list[object] = []

    def run() -> None:
        found.append(run_ranks(lambda world: world.all_reduce(torch.ones(1)).item(), 2, "gloo"))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [[2.0, 2.0]] * 3


def test_a_large_result_comes_whole() -> None:
    (found,) = run_ranks(lambda world: torch.arange(25_000_000, dtype=torch.int32), 1, "gloo")
    assert torch.equal(found, torch.arange(25_000_000, dtype=torch.int32))


def test_a_process_has_no_debugger_and_says_so() -> None:
    with pytest.raises(RanksFailed, match='backend="threads"'):
        run_ranks(lambda world: breakpoint(), 1, "gloo")


def test_ranks_are_forked_with_what_takes_long_to_import_if_the_caller_has_it() -> None:
    program = (
        "import sys, torch.distributed.tensor\n"
        "from distrun.testing import run_ranks\n"
        "print(run_ranks(lambda world: 'torch.distributed.tensor' in sys.modules, 2, 'gloo'))"
    )
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[True, True]\n", done.stderr
