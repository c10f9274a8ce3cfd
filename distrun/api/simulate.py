"""Runs the launcher at scale on one machine: a real supervisor over agents that are stubs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distrun.errors import MachineError, UsageError
from distrun.failures import chosen
from distrun.nodes.handed import Kept
from distrun.plan.model import LaunchPlan, NodePlan, Program
from distrun.processes import descriptor_limits
from distrun.runs import directory
from distrun.runs.record import RunRecord
from distrun.silence import LOST_AFTER_S
from distrun.supervise.client import SupervisorClient, start_supervisor

Fault = Literal["none", "killed", "silent", "slow"]
FAULTS: dict[Fault, str] = {
    "none": "nothing happens, and all nodes are stopped",
    "killed": "the agent in the middle is killed",
    "silent": f"it is stopped (SIGSTOP), and given up after {LOST_AFTER_S:g} s",
    "slow": "it never joins, and the join timeout ends the run",
}
MOST_NODES = 4096
_STUB = Path(__file__).parents[1] / "agent" / "stub.py"
_RENDEZVOUS = _STUB.with_name("stub_rendezvous.py")
_MEET_S = 600
_GRACE_S, _JOIN_S, _SLOW_JOIN_S = 5.0, 300.0, 20.0

__all__ = ["FAULTS", "Fault", "Simulated", "simulate"]


@dataclass(frozen=True)
class Simulated:
    """What a run of stubs took.

    Attributes:
        nnodes: Nodes.
        nproc_per_node: Ranks of each, in name alone.
        met_s: Until all nodes had met at torch's store; it is run by itself, before the rest.
        joined_s: Until all nodes have joined; None: they did not.
        started_s: Until all ranks are known to run, from there.
        named_s: From the fault until the node was named.
        stopped_s: From the order to stop until nothing was left.
        exit_code: Of the run.
        summary: How it ended.
    """

    nnodes: int
    nproc_per_node: int
    met_s: float
    joined_s: float | None
    started_s: float | None
    named_s: float | None
    stopped_s: float | None
    exit_code: int
    summary: str


def simulate(nnodes: int, nproc_per_node: int, fault: Fault) -> Simulated:
    """Run torch's rendezvous, then stubs as the nodes of a job, inject a fault, and end it.

    Ranks and collectives are not run: what is measured is the launcher.

    Args:
        nnodes: Nodes, each a process of this machine.
        nproc_per_node: Ranks of each.
        fault: What happens.

    Raises:
        UsageError: There are too many nodes for this machine's limits.
        MachineError: The nodes have not met.
    """
    _require_room(nnodes)
    met_s = _meet(nnodes, nproc_per_node)
    with tempfile.TemporaryDirectory(prefix="distrun-simulate-") as home:
        return _Run(Path(home), nnodes, nproc_per_node, met_s, fault).to_end()


def _meet(nnodes: int, nproc_per_node: int) -> float:
    """Return how long the rendezvous of so many nodes takes, each a thread of one process."""
    words = [sys.executable, str(_RENDEZVOUS), str(nnodes), str(nproc_per_node)]
    quiet = {**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR"}  # it has no names for so many sockets
    try:
        done = subprocess.run(words, env=quiet, capture_output=True, text=True, timeout=_MEET_S)
    except subprocess.TimeoutExpired:
        raise MachineError(f"{nnodes} nodes have not met within {_MEET_S} s") from None
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise MachineError(f"{nnodes} nodes cannot meet: {why[0]}", "fewer --nodes")
    return float(json.loads(done.stdout))


def _require_room(nnodes: int) -> None:
    if nnodes > MOST_NODES:
        raise UsageError(f"--nodes {nnodes} is above the limit of {MOST_NODES}", "fewer --nodes")
    most = descriptor_limits()[1]
    if most < 4 * nnodes:
        raise UsageError(
            f"{nnodes} nodes need {4 * nnodes} open files, and this user may have {most}",
            f"--nodes {most // 4}, or a higher limit (ulimit -Hn)",
        )


class _Run:
    """One run."""

    def __init__(
        self, home: Path, nnodes: int, nproc_per_node: int, met_s: float, fault: Fault
    ) -> None:
        self._fault, self._nnodes, self._nproc = fault, nnodes, nproc_per_node
        self._met_s = met_s
        plan = _plan(nnodes, nproc_per_node, slow=fault == "slow")
        run = directory.create(home, plan.run_id)
        record = RunRecord(plan.run_id, "simulated", nnodes, nproc_per_node, time.time())
        self._began = time.monotonic()
        self._client: SupervisorClient = start_supervisor(
            plan, run, record, detached=False, agents=Kept()
        )
        self._events: Iterator[dict[str, Any]] = self._client.events()
        self._pids: dict[int, int] = {}
        self._ended: dict[str, Any] = {}

    def to_end(self) -> Simulated:
        """Wait for each stage, and measure."""
        try:
            return self._measure()
        finally:
            self._client.signal(signal.SIGTERM)
            for _event in self._events:
                pass

    def _measure(self) -> Simulated:
        joined_at = self._until("world_started")
        started_at = self._until("rank_started", self._nnodes * self._nproc) if joined_at else None
        named_s = self._inject() if started_at else None
        stop_at = time.monotonic()
        self._client.signal(signal.SIGTERM)
        ended_at = self._until("ended")
        return Simulated(
            self._nnodes,
            self._nproc,
            self._met_s,
            joined_at and joined_at - self._began,
            started_at and joined_at and started_at - joined_at,
            named_s,
            ended_at and started_at and ended_at - stop_at,
            int(self._ended.get("exit_code", 70)),
            str(self._ended.get("summary", "the supervisor ended without a word")),
        )

    def _inject(self) -> float | None:
        if self._fault not in ("killed", "silent"):
            return None
        signum = signal.SIGKILL if self._fault == "killed" else signal.SIGSTOP
        at = time.monotonic()
        os.kill(self._pids[self._nnodes // 2], signum)
        named_at = self._until("node_lost")
        return named_at and named_at - at

    def _until(self, name: str, times: int = 1) -> float | None:
        """Wait until an event has come so often; None: the run has ended before."""
        if self._ended:
            return time.monotonic() if name == "ended" else None
        for event in self._events:
            if event.get("event") == "node_stage" and "pid" in event:
                self._pids[event["node"]] = event["pid"]
            if event.get("event") == "ended":
                self._ended = event
            times -= event.get("event") == name
            if not times:
                return time.monotonic()
            if self._ended:
                break
        return None


def _plan(nnodes: int, nproc_per_node: int, *, slow: bool) -> LaunchPlan:
    """Return the plan of a run whose nodes are stubs, reached as nodes behind ssh are."""
    stub = (sys.executable, "-I", "-S", str(_STUB), "0", "0", "1", str(nproc_per_node))
    late = ("sleep", "3600")
    nodes = tuple(
        NodePlan(i, f"n{i:04}", "127.0.0.1", {}, late if slow and i == nnodes // 2 else stub)
        for i in range(nnodes)
    )
    return LaunchPlan(
        run_id=f"simulate-{os.getpid()}-{time.monotonic_ns()}",
        program=Program("train.py"),
        nodes=nodes,
        min_nodes=nnodes,
        nproc_per_node=nproc_per_node,
        master_port=29500,
        master_port_is_users=True,
        warm=False,
        max_restarts=0,
        grace_s=_GRACE_S,
        linger_s=0.0,
        straggler_notice_s=0.0,
        hang_timeout_s=0.0,
        stops_on_hang=True,
        join_timeout_s=_SLOW_JOIN_S if slow else _JOIN_S,
        time_limit_s=None,
        local=False,
        log_max_nbytes=0,
        workdir="/",
        secrets=(),
        actions=chosen({}),
        settings=(),
        metrics_every_s=0.0,
        report=False,
    )
