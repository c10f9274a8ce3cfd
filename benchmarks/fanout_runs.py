"""Runs whose nodes are stubs, under a real supervisor or read by a loop that does nothing else."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from distrun.agent import stub as stub_agent
from distrun.agent.stub import LINE, TICK_S
from distrun.nodes.handed import Kept
from distrun.plan.model import LaunchPlan, NodePlan, Program
from distrun.runs import directory
from distrun.runs.record import RunRecord
from distrun.supervise.client import SupervisorClient, start_supervisor
from distrun.wire import encoded

STUB = stub_agent.__file__
GRACE_S = 5.0
IDLE_S = 3.0
Measured = dict[str, float]


@dataclass(frozen=True)
class Printed:
    """What each stub prints."""

    lines_per_s: int = 0
    seconds: float = 0.0
    lines_a_frame: int = 1

    @property
    def lines(self) -> int:
        """How many in all."""
        frames_a_tick = round(self.lines_per_s * TICK_S) // self.lines_a_frame
        return round(self.seconds / TICK_S) * frames_a_tick * self.lines_a_frame

    @property
    def command(self) -> tuple[str, ...]:
        """The command of a stub."""
        numbers = map(str, (self.lines_per_s, self.seconds, self.lines_a_frame))
        return (sys.executable, "-I", "-S", STUB, *numbers)


NOTHING = Printed()


def plan_of(agents: int, command: tuple[str, ...]) -> LaunchPlan:
    """Return the plan of a run whose nodes are stubs, reached as nodes behind ssh are."""
    nodes = tuple(NodePlan(i, f"n{i:03}", "127.0.0.1", {}, command) for i in range(agents))
    return LaunchPlan(
        run_id=f"fanout-{os.getpid()}-{time.monotonic_ns()}",
        program=Program("train.py"),
        nodes=nodes,
        min_nodes=agents,
        nproc_per_node=1,
        master_port=29500,
        master_port_is_users=True,
        warm=False,
        max_restarts=0,
        grace_s=GRACE_S,
        linger_s=0.0,
        straggler_notice_s=0.0,
        hang_timeout_s=0.0,
        stops_on_hang=True,
        join_timeout_s=300.0,
        time_limit_s=None,
        local=False,
        log_max_nbytes=0,
        workdir="/",
        secrets=(),
        actions={},
        settings=(),
    )


def cpu_s(pids: Sequence[int]) -> float:
    """Return the CPU time of all threads of live processes, exact to less than a clock tick."""
    files = [f for pid in pids for f in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


class Run:
    """One run of stubs under a supervisor; `with` leaves when it has ended."""

    def __init__(self, home: Path, agents: int, printed: Printed = NOTHING) -> None:
        plan = plan_of(agents, printed.command)
        self.began = time.monotonic()
        self.run = directory.create(home, plan.run_id)
        record = RunRecord(plan.run_id, "train.py", agents, 1, time.time())
        self.client: SupervisorClient = start_supervisor(
            plan, self.run, record, detached=False, agents=Kept()
        )
        self.events: Iterator[dict[str, Any]] = self.client.events()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.signal(signal.SIGTERM)
        for _event in self.events:
            pass

    def until(self, name: str, times: int = 1) -> float:
        """Wait until an event has come so often; return the time on the monotonic clock."""
        for event in self.events:
            times -= event.get("event") == name
            if not times:
                return time.monotonic()
        raise RuntimeError(f"it ended without {name}: see {self.run.path}")

    def cpu_s(self) -> float:
        """Return the CPU time of its supervisor so far."""
        return cpu_s([self.client.pid])

    def signal_one(self, signum: int) -> float:
        """Send a signal to the stub in the middle; return the time."""
        stubs = [c for c in psutil.Process(self.client.pid).children() if STUB in c.cmdline()]
        stubs[len(stubs) // 2].send_signal(signum)
        return time.monotonic()


def flow(home: Path, agents: int, printed: Printed) -> Measured:
    """Run stubs that print to their end, and count the lines in their logs."""
    with Run(home, agents, printed) as run:
        joined_at, join_cpu_s = run.until("world_started"), run.cpu_s()
        took_s = run.until("rank_ended", agents) - joined_at
        lines_cpu_s = run.cpu_s() - join_cpu_s
        memory = psutil.Process(run.client.pid).memory_info().rss / 2**20
        run.until("ended")
    written = sum(file.stat().st_size for file in run.run.path.glob("logs/node*/rank*.log"))
    lines = written // len(LINE)
    return {
        "all joined, s": joined_at - run.began,
        "CPU until then, s": join_cpu_s,
        "memory, MiB": memory,
        "lines a second": lines / took_s,
        "CPU for the lines, s": lines_cpu_s,
        "CPU a line, us": 1e6 * lines_cpu_s / max(1, lines),
        "lines lost": agents * printed.lines - lines,
    }


def flushed(home: Path, agents: int, printed: Printed) -> Measured:
    """Run stubs that send each line by itself."""
    found = flow(home, agents, replace(printed, lines_a_frame=1))
    wanted = ("lines a second", "CPU a line, us", "lines lost")
    return {f"each line flushed: {name}": found[name] for name in wanted}


def faults(home: Path, agents: int) -> Measured:
    """Kill one node of many; let many be idle, and stop them."""
    with Run(home, agents) as run:
        run.until("rank_started", agents)
        killed_at = run.signal_one(signal.SIGKILL)
        named_s = run.until("node_lost") - killed_at
    with Run(home, agents) as run:
        run.until("rank_started", agents)
        idle_from, used_s = time.monotonic(), run.cpu_s()
        while time.monotonic() < idle_from + IDLE_S:
            next(run.events)
        share = (run.cpu_s() - used_s) / (time.monotonic() - idle_from)
        stop_at = time.monotonic()
        run.client.signal(signal.SIGTERM)
        stopped_s = run.until("ended") - stop_at
    return {
        "CPU when idle, %": 100 * share,
        "one killed: named after, s": named_s,
        "all stopped after, s": stopped_s,
    }


def silence(home: Path, agents: int) -> Measured:
    """Stop one node of many with SIGSTOP; it counts as lost after a silence."""
    with Run(home, agents) as run:
        run.until("rank_started", agents)
        silent_at = run.signal_one(signal.SIGSTOP)
        return {"one silent: named after, s": run.until("node_lost") - silent_at}


def alone(agents: int, printed: Printed) -> Measured:
    """Run the same stubs under a loop that reads their bytes and does nothing with them."""
    began = time.monotonic()
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    pipes["start_new_session"] = True  # as under a supervisor: a session has its share of the cores
    stubs = [subprocess.Popen(printed.command, **pipes) for _ in range(agents)]
    _tell(stubs, {"environ": {}})
    _read_until(stubs, b'"node_joined"')
    joined_at, used_s = time.monotonic(), cpu_s([stub.pid for stub in stubs])
    _tell(stubs, {"command": "start", "arguments": ["--node-rank=0"]})
    _read_until(stubs, b'"node_succeeded"')
    took_s, used_s = time.monotonic() - joined_at, cpu_s([s.pid for s in stubs]) - used_s
    _tell(stubs, {"command": "exit"})
    for stub in stubs:
        stub.communicate()
    lines = agents * printed.lines
    return {
        "stubs alone: joined, s": joined_at - began,
        "stubs alone: lines a second": lines / took_s,
        "stubs alone: their CPU a line, us": 1e6 * used_s / lines,
    }


def _tell(stubs: Sequence[subprocess.Popen[bytes]], message: dict[str, Any]) -> None:
    for stub in stubs:
        assert stub.stdin
        stub.stdin.write(encoded(message))


def _read_until(stubs: Sequence[subprocess.Popen[bytes]], word: bytes) -> None:
    """Read until each has sent the word."""
    with selectors.DefaultSelector() as selector:
        for stub in stubs:
            assert stub.stdout
            selector.register(stub.stdout, selectors.EVENT_READ, [b""])
        while selector.get_map():
            for key, _ in selector.select():
                if not (data := os.read(key.fd, 1 << 20)):
                    raise RuntimeError("a stub has ended too early")
                (end,) = key.data
                if word in end + data:
                    selector.unregister(key.fileobj)
                key.data[0] = data[-len(word) :]
