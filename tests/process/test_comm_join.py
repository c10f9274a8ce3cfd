"""How ranks come together, by the variables that a launcher sets; and why they do not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from distrun import comm
from distrun.comm.join import open_store
from distrun.env import TorchrunEnv, is_inherited_from_a_launcher

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give this process a place in a job: RANK=…, as keywords; the rest is unset."""
    for name in [name for name in os.environ if is_inherited_from_a_launcher(name)]:
        monkeypatch.delenv(name)

    def be(**variables: object) -> None:
        for name, value in {"MASTER_ADDR": "127.0.0.1", **variables}.items():
            monkeypatch.setenv(name, str(value))

    return be


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def listener(answer: bytes = b"") -> Iterator[int]:
    """Listen as a program that is no store: it answers every caller so, or says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        callers: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return  # shut down
                callers.append(caller)
                if answer:
                    caller.recv(1)
                    caller.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for caller in callers:
                caller.close()


SAYS_WHO_IT_IS = """
import torch
from distrun import comm
def say(line):
    print(line + "\\n", end="", flush=True)  # in one piece, for torchrun's ranks share a pipe
with comm.init(timeout_s=30) as world:
    total = world.all_reduce(torch.tensor(world.rank + 1.0)).item()
    say(f"{world} has {total}")
    try:
        world.barrier() if world.rank else world.all_reduce(torch.ones(2))
    except comm.CollectiveMismatchError as error:
        say(str(error).splitlines()[0])
    else:
        say("no mismatch")
"""
SAID = [
    *(
        "<the world: rank 0 of 2, gloo on cpu> has 3.0",
        "<the world: rank 1 of 2, gloo on cpu> has 3.0",
    ),
    *["the ranks of the world made different calls as call #2; nothing was sent"] * 2,
]


@pytest.mark.parametrize("by", ["variables", "torchrun"])
def test_processes_join_by_torchruns_variables_and_check_their_calls_if_told_to(
    by: str, place: Callable[..., None], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SAYS_WHO_IT_IS)
    port, python = free_port(), [sys.executable, "-W", "error"]
    place(DISTRUN_COMM_CHECK=1, OMP_NUM_THREADS=1, MASTER_PORT=port, WORLD_SIZE=2)
    if by == "torchrun":
        words = ("--nproc-per-node", 2, "--master-port", port, script)
        commands = [[*python, "-m", "torch.distributed.run", *map(str, words)]]
    else:
        commands = [[*python, str(script)]] * 2
    ranks = [
        subprocess.Popen(
            command,
            env={**os.environ, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, command in enumerate(commands)
    ]
    ends = [(*rank.communicate(timeout=50), rank.returncode) for rank in ranks]
    assert [code for *_, code in ends] == [0] * len(ranks), ends
    assert sorted("".join(out for out, *_ in ends).splitlines()) == sorted(SAID), ends


def test_without_a_launcher_it_is_a_world_of_one_that_needs_no_port(
    place: Callable[..., None],
) -> None:
    with listener() as port:
        place(MASTER_PORT=port)
        with comm.init() as world:
            assert (world.rank, world.world_size, world.local_rank) == (0, 1, 0)
            assert world.all_reduce(torch.arange(3)).tolist() == [0, 1, 2]
    assert not dist.is_initialized()


def test_an_exception_inside_with_closes_the_world_and_propagates(
    place: Callable[..., None],
) -> None:
    place()
    with pytest.raises(ZeroDivisionError), comm.init("gloo") as world:
        world.all_reduce(torch.ones(1) / (1 // 0))
    with pytest.raises(comm.ClosedError):
        world.barrier()
    assert not dist.is_initialized()
    with comm.init("gloo") as world:  # and another can begin
        world.barrier()


@pytest.mark.parametrize(
    ("variables", "options", "kind", "said"),
    [
        (
            {"RANK": 5, "WORLD_SIZE": 2},
            {},
            "CommUsageError",
            "RANK=5 is out of range for WORLD_SIZE=2",
        ),
        ({"RANK": -1, "WORLD_SIZE": 2}, {}, "CommUsageError", "RANK=-1 is out of range"),
        ({"RANK": "x"}, {}, "CommUsageError", "a variable of torchrun is not a number"),
        ({"MASTER_PORT": ""}, {}, "CommUsageError", "a variable of torchrun is not a number"),
        ({}, {"backend": "mpi"}, "CommUsageError", "backend='mpi' is not known to distrun"),
        ({}, {"timeout_s": 0}, "CommUsageError", "timeout_s=0 is not a number of seconds"),
        # more GPUs than any machine has, so that this holds on one with GPUs too
        ({"LOCAL_RANK": 999}, {"backend": "nccl"}, "NoGpuError", "NCCL was asked for"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_init_refuses_a_place_that_makes_no_sense_and_says_what_would(
    place: Callable[..., None],
    variables: dict[str, object],
    options: dict[str, object],
    kind: str,
    said: str,
) -> None:
    place(**variables)
    with pytest.raises(getattr(comm, kind), match=r"^comm\.init: ") as refused:
        comm.init(**options)  # type: ignore[arg-type]
    assert said in str(refused.value)
    assert not dist.is_initialized()


def test_a_second_init_in_one_process_is_refused(place: Callable[..., None]) -> None:
    place()
    with comm.init("gloo") as world:
        with pytest.raises(comm.CommUsageError, match="this process has a world already"):
            comm.init("gloo")
        world.barrier()  # the first one is none the worse


def test_a_closed_group_says_where_it_was_closed(place: Callable[..., None]) -> None:
    place()
    world = comm.init("gloo")
    part = world.split([[0]], name="the part")
    assert part is not None
    world.close()
    line = sys._getframe().f_lineno - 1
    world.close()  # closing twice is no error
    calls = [("the world", world.barrier), ("the world", world.rebuild), ("the part", part.barrier)]
    for name, call in calls:
        with pytest.raises(comm.ClosedError) as refused:
            call()
        assert str(refused.value) == (
            f"{name} was closed at {Path(__file__).name}:{line}\n"
            "  hint: make the call before the end of `with comm.init()`"
        )


def test_a_busy_port_is_told_at_once(place: Callable[..., None]) -> None:
    with listener() as port:
        place(RANK=0, WORLD_SIZE=2, MASTER_PORT=port)
        begun = time.monotonic()
        with pytest.raises(comm.PortBusyError) as refused:
            comm.init("gloo", timeout_s=30)
        assert time.monotonic() - begun < 5
    assert f"rank 0 cannot listen at 127.0.0.1:{port}: another program uses" in str(refused.value)


def test_ranks_that_do_not_come_are_named(place: Callable[..., None]) -> None:
    place(RANK=0, WORLD_SIZE=4, MASTER_PORT=free_port())
    begun = time.monotonic()
    with pytest.raises(comm.JoinError) as refused:
        comm.init("gloo", timeout_s=2)
    assert 2 <= time.monotonic() - begun < 7
    assert str(refused.value).startswith("3 of 4 ranks did not join within 2 s: ranks 1-3\n")


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"],
    ids=["silent", "HTTP"],
)
def test_a_program_that_is_no_store_at_the_port_ends_in_an_error_within_the_timeout(
    place: Callable[..., None], answer: bytes
) -> None:
    told: list[BaseException] = []

    def join() -> None:
        try:
            comm.init("gloo", timeout_s=1)
        except comm.JoinError as error:
            told.append(error)

    with listener(answer) as port:
        place(RANK=1, WORLD_SIZE=2, MASTER_PORT=port)
        # In a thread, for a hang in torch's C++ can be ended from nowhere else.
        rank = threading.Thread(target=join, daemon=True)
        rank.start()
        rank.join(6)
        in_time = list(map(str, told))
    rank.join(10)  # if it hangs: its caller has hung up on it now
    assert len(in_time) == 1, "it hangs"
    assert in_time[0].startswith(
        f"rank 1 could not reach the ranks' store at 127.0.0.1:{port} within 1 s ("
    )


@pytest.mark.parametrize(
    ("address", "everywhere"),
    [("127.0.0.1", False), ("localhost", False), (socket.gethostname(), True)],
)
def test_rank_0_keeps_the_store_at_an_address_alone_and_under_a_name_everywhere(
    address: str, everywhere: bool
) -> None:
    env = TorchrunEnv(0, 0, 0, 2, 2, 1, address, free_port())
    store = open_store(env, 10)
    store.set("key", "value")
    if everywhere:  # the name may be another address on other machines
        socket.create_connection(("127.0.0.2", env.master_port), 5).close()
    else:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", env.master_port), 5)
