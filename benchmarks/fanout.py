"""One supervisor over many nodes, whose agents are stubs without torch.

    python -m benchmarks.fanout [--agents 16,64,256] [--lines 1000] [--seconds 10]

For each number of agents: the time until all have joined, the supervisor's memory and its CPU time
a line, how long it takes to name one node that was killed, and to stop all. The lines must be in
the logs, all of them. The goal: at most linear, so a ratio of 256 to 64 of at most 4.5.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.stub_agent import LINE
from distrun.plan.model import LaunchPlan, NodePlan, Program
from distrun.runs import directory
from distrun.runs.record import RunRecord
from distrun.supervise.client import SupervisorClient, start_supervisor

STUB = str(Path(__file__).with_name("stub_agent.py"))
GOAL = 4.5
GRACE_S = 5.0


@dataclass
class Measured:
    """What one number of agents cost."""

    joined_s: float
    rss_mib: float
    lines_per_s: float
    cpu_us_a_line: float
    lost_lines: int
    named_s: float
    stopped_s: float


def plan_of(agents: int, lines_per_s: int, seconds: float) -> LaunchPlan:
    """Return the plan of a run whose nodes are stubs, reached as nodes behind ssh are."""
    command = (sys.executable, "-I", "-S", STUB, str(lines_per_s), str(seconds))
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
        join_timeout_s=300.0,
        time_limit_s=None,
        local=False,
        log_max_nbytes=0,
        workdir="/",
        secrets=(),
        settings=(),
    )


class Run:
    """One run of stubs."""

    def __init__(self, home: Path, agents: int, lines_per_s: int, seconds: float) -> None:
        plan = plan_of(agents, lines_per_s, seconds)
        self.began = time.monotonic()
        self.run = directory.create(home, plan.run_id)
        record = RunRecord(plan.run_id, "train.py", agents, 1, time.time())
        self.client: SupervisorClient = start_supervisor(plan, self.run, record, detached=False)
        self.process = psutil.Process(self.client.pid)
        self.events: Iterator[dict[str, Any]] = self.client.events()

    def until(self, name: str) -> float:
        """Wait for an event; return the seconds since the start."""
        for event in self.events:
            if event.get("event") == name:
                return time.monotonic() - self.began
        raise RuntimeError(f"it ended without {name}: see {self.run.path}")


def flow(home: Path, agents: int, lines_per_s: int, seconds: float) -> tuple[float, ...]:
    """Run stubs that print to their end: joined_s, rss_mib, lines/s, CPU us a line, lost lines."""
    run = Run(home, agents, lines_per_s, seconds)
    joined_s = run.until("world_started")
    before, cpu = time.monotonic(), run.process.cpu_times()
    run.until("rank_ended")
    rss, now = run.process.memory_info().rss / 2**20, run.process.cpu_times()
    used_s = now.user + now.system - cpu.user - cpu.system
    run.until("ended")
    took_s = time.monotonic() - before
    for _ in run.events:
        pass
    written = sum(file.stat().st_size for file in run.run.path.glob("logs/node*/rank*.log"))
    lines = written // len(LINE)
    wanted = agents * int(seconds / 0.05) * round(lines_per_s * 0.05)
    return joined_s, rss, lines / took_s, 1e6 * used_s / max(1, lines), wanted - lines


def faults(home: Path, agents: int) -> tuple[float, float]:
    """Kill one node of many, and stop many: seconds to its name, and to the end of all."""
    run = Run(home, agents, 0, 0)
    run.until("world_started")
    stubs = [child for child in run.process.children() if STUB in child.cmdline()]
    stubs[len(stubs) // 2].kill()
    before = time.monotonic() - run.began
    named_s = run.until("node_lost") - before
    for _ in run.events:
        pass
    run = Run(home, agents, 0, 0)
    started_s = run.until("world_started")
    run.client.signal(signal.SIGTERM)
    stopped_s = run.until("ended") - started_s
    for _ in run.events:
        pass
    return named_s, stopped_s


def measure(agents: int, lines_per_s: int, seconds: float) -> Measured:
    """Measure one number of agents."""
    with tempfile.TemporaryDirectory(prefix="distrun-bench-") as name:
        joined_s, rss, rate, cpu, lost = flow(Path(name), agents, lines_per_s, seconds)
        return Measured(joined_s, rss, rate, cpu, int(lost), *faults(Path(name), agents))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", default="16,64,256")
    parser.add_argument("--lines", type=int, default=1000, help="a second, of each agent")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    found: dict[int, Measured] = {}
    print(f"load {os.getloadavg()[0]:.1f}")
    print("agents   joined      memory     lines/s   CPU a line   lost   one killed   all stopped")
    for agents in map(int, options.agents.split(",")):
        m = found[agents] = measure(agents, options.lines, options.seconds)
        print(
            f"{agents:>6} {m.joined_s:>7.2f} s {m.rss_mib:>7.1f} MiB {m.lines_per_s:>11.0f}"
            f" {m.cpu_us_a_line:>9.2f} us {m.lost_lines:>6} {m.named_s:>10.2f} s"
            f" {m.stopped_s:>11.2f} s",
            flush=True,
        )
    bad = any(m.lost_lines for m in found.values())
    if {64, 256} <= set(found):
        ratio = found[256].joined_s / found[64].joined_s
        print(f"joined, 256 to 64: {ratio:.2f}, goal {GOAL}")
        bad = bad or ratio > GOAL
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
