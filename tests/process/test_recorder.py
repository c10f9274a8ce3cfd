"""What an agent learns of its ranks while they are stuck: real ranks, real process groups."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.process.agent_alone import AgentAlone, Event

pytestmark = pytest.mark.timeout(170)
WARM_AND_COLD = pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
Start = Callable[..., AgentAlone]

BEGIN = """
import ctypes, os, sys, time
import torch, torch.distributed as dist
dist.init_process_group("gloo")
x = torch.ones(7)
for _ in range(5):
    dist.all_reduce(x)
def ready():
    print("ready", flush=True)
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start an agent for a script that goes on behind BEGIN; end it after the test."""
    started: list[AgentAlone] = []

    def begin(script: str, **options: Any) -> AgentAlone:
        path = tmp_path / "train.py"
        path.write_text(BEGIN + script)
        started.append(AgentAlone(path, **options))
        return started[-1]

    monkeypatch.chdir(tmp_path)
    yield begin
    for agent in started:
        agent.end()


def enqueued(told: Event) -> int:
    counts = told["answer"]["trace"]["pg_status"]["0"]
    return int(counts["last_enqueued_collective"])


def looked_until(agent: AgentAlone, found: Callable[[dict[int, Event]], bool]) -> dict[int, Event]:
    """Ask until it is as meant: ranks may be on their way."""
    told: dict[int, Event] = {}

    def is_found() -> bool:
        told.update(agent.look())
        return all(one["answer"] for one in told.values()) and found(told)

    wait_until(is_found, 40)
    return told


LATE = """
def load():
    time.sleep(600)
ready()
if dist.get_rank() == 1:
    load()
dist.broadcast(x, src=1)
"""


@WARM_AND_COLD
def test_a_rank_that_sleeps_and_one_that_waits_for_it_tell_what_they_are_in(
    warm: bool, start: Start
) -> None:
    agent = start(LATE, warm=warm)
    agent.wait_for_words(b"ready", 0, 1)
    told = looked_until(agent, lambda told: enqueued(told[0]) == 6)
    waits, sleeps = (told[rank]["answer"] for rank in (0, 1))
    assert enqueued(told[1]) == 5
    default = {"name": "0", "desc": "default_pg", "ranks": [0, 1], "timeout_s": 1800.0}
    assert waits["groups"] == [default]
    assert waits["call"] == {"function": "broadcast", "group": "0", "arguments": {"src": 1}}
    assert sleeps["call"] is None
    (file, line, function), outer = sleeps["frames"]
    script = Path(file).read_text().splitlines()
    assert (function, script[line - 1]) == ("load", "    time.sleep(600)")
    assert (outer[2], script[outer[1] - 1]) == ("<module>", "    load()")
    assert sleeps["opcode"].startswith("CALL")
    seqs = [each["collective_seq_id"] for each in waits["trace"]["entries"]]
    assert seqs == [6, 5], "what is pending and the last that is not, of all calls"


def test_the_stacks_come_with_the_collectives_and_without_the_thread_that_tells(
    start: Start,
) -> None:
    agent = start(LATE)
    agent.wait_for_words(b"ready", 0, 1)
    looked_until(agent, lambda told: enqueued(told[0]) == 6)
    told = agent.stacks(2)
    ops = [(e["profiling_name"], e["retired"]) for e in told[0]["answer"]["trace"]["entries"]]
    assert ops == [("gloo:all_reduce", True)] * 5 + [("gloo:broadcast", False)]
    assert len(told[1]["answer"]["trace"]["entries"]) == 5
    assert "in load" in told[1]["stacks"]
    assert "recorder.py" not in told[0]["stacks"] + told[1]["stacks"]
    assert told[1]["state"] == told[1]["process"]["state"] == "S"
    assert not told[1]["process"]["is_traced"] and told[1]["process"]["cpu_s"] > 0


CALLS = """
pair = dist.new_group([1, 2], group_desc="pair")
calls = [
    lambda: dist.broadcast(x, group_src=1, group=pair),
    lambda: dist.reduce(x, 1, dist.ReduceOp.MAX, pair),
    lambda: dist.all_reduce(x, group=pair, op=dist.ReduceOp.PRODUCT),
    lambda: dist.recv(x, src=2, tag=7) if dist.get_rank() == 1 else dist.send(x, 1, tag=7),
    lambda: dist.barrier(),
]
ready()
for number, call in enumerate(calls):
    while dist.get_rank() == 2 and not os.path.exists(f"go{number}"):
        time.sleep(0.02)
    if dist.get_rank() or call is calls[-1]:
        call()
dist.destroy_process_group()
"""
TOLD = [
    ("broadcast", "pair", {"src": 2}),
    ("reduce", "pair", {"dst": 1, "op": "MAX"}),
    ("all_reduce", "pair", {"op": "PRODUCT"}),
    ("recv", "default_pg", {"src": 2, "tag": 7}),
    ("barrier", "default_pg", {}),
]
"""The function that rank 1 is in, its group and its arguments."""


def test_a_call_is_told_with_its_group_and_its_arguments_as_global_ranks(
    start: Start, tmp_path: Path
) -> None:
    agent = start(CALLS, nproc=3)
    agent.wait_for_words(b"ready", 0, 1, 2)
    for number, expected in enumerate(TOLD):

        def is_told(told: dict[int, Event], expected: object = expected) -> bool:
            answer = told[1]["answer"]
            names = {group["name"]: group["desc"] for group in answer["groups"]}
            call = answer["call"] or {"function": "", "group": "", "arguments": {}}
            found = call["function"], names.get(call["group"], ""), call["arguments"]
            return found == expected

        looked_until(agent, is_told)
        (tmp_path / f"go{number}").touch()
    agent.look_until_the_end(3, 0.05)
    assert agent.exit_codes == {0: 0, 1: 0, 2: 0}


HOLDS_THE_GIL = """
os.mkfifo(f"go{dist.get_rank()}")
ready()
fd = os.open(f"go{dist.get_rank()}", os.O_RDWR)
os.read(fd, 1)
if dist.get_rank() == 1:
    libc, byte = ctypes.PyDLL(None), ctypes.create_string_buffer(1)
    print("holds", flush=True)
    libc.read(fd, byte, 1)
dist.all_reduce(x)
dist.destroy_process_group()
"""


def tell(*fifos: str) -> None:
    for name in fifos:
        with open(name, "wb", buffering=0) as fifo:
            fifo.write(b"x")


def test_of_a_rank_whose_gil_is_held_the_last_answer_is_told_with_its_age(start: Start) -> None:
    agent = start(HOLDS_THE_GIL)
    agent.wait_for_words(b"ready", 0, 1)
    known = looked_until(agent, lambda told: enqueued(told[0]) >= 5)[1]["answer"]
    tell("go0", "go1")
    agent.wait_for_words(b"holds", 1)
    looked_until(agent, lambda told: told[1]["age_s"] >= 1)
    first, second = agent.look()[1], agent.look()[1]
    assert known["time_ns"] <= first["answer"]["time_ns"] == second["answer"]["time_ns"]
    assert second["age_s"] > first["age_s"] >= 1
    told = agent.stacks(2)
    assert "in <module>" in told[1]["stacks"], "C writes them"
    assert told[1]["age_s"] > second["age_s"]
    assert enqueued(told[0]) == 6
    tell("go1")
    agent.look_until_the_end(2, 0.05)
    assert agent.exit_codes == {0: 0, 1: 0}


def test_a_stopped_rank_is_told_as_stopped_and_costs_the_others_nothing(start: Start) -> None:
    agent = start(LATE)
    agent.wait_for_words(b"ready", 0, 1)
    looked_until(agent, lambda told: enqueued(told[0]) == 6)
    os.kill(agent.pids[1], 19)
    told = looked_until(agent, lambda told: told[1]["process"]["state"] == "T")
    assert enqueued(told[1]) == 5
    assert enqueued(told[0]) == 6
    told = agent.stacks(2)
    assert (told[1]["stacks"], told[1]["state"]) == ("", "T")
    assert "broadcast" in told[0]["stacks"]
    os.kill(agent.pids[1], 18)


CLOSES_ITS_SOCKETS = """
import stat
names = set(os.listdir("/proc/self/fd"))
for name in names:
    link = os.path.join("/proc/self/fd", name)
    unix = open("/proc/net/unix").read()
    if os.path.exists(link) and stat.S_ISSOCK(os.stat(link).st_mode):
        inode = str(os.stat(link).st_ino)
        if any(inode in line.split() for line in unix.splitlines()):
            other = os.open(f"file{name}", os.O_RDWR | os.O_CREAT)
            os.dup2(other, int(name))
            print("closed", flush=True)
while not os.path.exists("go_on"):
    time.sleep(0.05)
written = [os.fstat(int(name)).st_size for name in names if os.path.exists(f"file{name}")]
print("written", written, flush=True)
dist.all_reduce(x)
dist.destroy_process_group()
"""


def test_a_script_that_closes_our_socket_finds_nothing_written_to_its_own_file(
    start: Start, tmp_path: Path
) -> None:
    agent = start(CLOSES_ITS_SOCKETS, nproc=1)
    agent.wait_for_words(b"closed", 0)
    for _ in range(3):
        agent.look()
    (tmp_path / "go_on").touch()
    agent.look_until_the_end(1, 0.05)
    assert agent.exit_codes == {0: 0}
    assert agent.printed[0].endswith(b"written [0]\n"), agent.printed


FORKS = """
child = os.fork()
if child == 0:
    while not os.path.exists("child_ends"):
        time.sleep(0.02)
    os._exit(5)  # python's own end waits for threads of gloo that a child has not
ready()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
while not os.path.exists("go_on"):
    time.sleep(0.02)
"""


def test_the_end_of_a_child_that_a_rank_forked_leaves_the_rank_answering(
    start: Start, tmp_path: Path
) -> None:
    agent = start(FORKS, nproc=1)
    agent.wait_for_words(b"ready", 0)
    (tmp_path / "child_ends").touch()
    agent.wait_for_words(b"5\n", 0)
    before = agent.look()[0]["answer"]["time_ns"]
    assert agent.look()[0]["answer"]["time_ns"] > before
    (tmp_path / "go_on").touch()
    agent.look_until_the_end(1, 0.05)
    assert agent.exit_codes == {0: 0}


@pytest.mark.parametrize("size", ["0", "", "abc"])
def test_a_users_own_size_of_the_record_is_left_alone_and_then_there_is_no_thread(
    size: str, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import os, torch.distributed as dist\n"
        "print(repr(os.environ['TORCH_FR_BUFFER_SIZE']))\n"
        "hook = dist.distributed_c10d._register_process_group\n"
        "print(type(hook).__name__, flush=True)\n"
    )
    agent = AgentAlone(script, 1, environ={"TORCH_FR_BUFFER_SIZE": size})
    agent.look_until_the_end(1, 0.05)
    agent.end()
    assert agent.printed[0].decode() == f"{size!r}\nbuiltin_function_or_method\n"
