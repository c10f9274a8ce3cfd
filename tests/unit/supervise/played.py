"""Agents that a test plays: real pipes, and a real process that can be killed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import Any

from distrun.failures import chosen
from distrun.nodes.conversation import Conversation
from distrun.plan.model import LaunchPlan, NodePlan, Program
from distrun.supervise.agents import Agent
from distrun.wire import Lines
from tests.unit.echo import Echo

_REPORT = {"monotonic": 1.0, "left_by_itself": False, "report": None, "stacks": ""}
_END = {
    **_REPORT,
    "code_known": True,
    "stacks_printed": False,
    "last_words": "",
    "out_of_memory": "",
}


def plan_of(nnodes: int = 2, nproc_per_node: int = 1, **changes: Any) -> LaunchPlan:
    """Return the plan of a run on emulated nodes."""
    fields: dict[str, Any] = {
        "run_id": f"unit-{uuid.uuid4().hex}",
        "program": Program("train.py"),
        "nodes": tuple(NodePlan(i, f"node{i}", "127.0.0.1", {}) for i in range(nnodes)),
        "min_nodes": nnodes,
        "nproc_per_node": nproc_per_node,
        "master_port": 29500,
        "master_port_is_users": False,
        "warm": True,
        "max_restarts": 0,
        "grace_s": 30.0,
        "linger_s": 7.0,
        "straggler_notice_s": 0.0,
        "hang_timeout_s": 0.0,
        "stops_on_hang": True,
        "join_timeout_s": 600.0,
        "time_limit_s": None,
        "local": True,
        "log_max_nbytes": 0,
        "workdir": "/home/ada",
        "secrets": (),
        "actions": chosen({}),
        "settings": (),
    }
    return LaunchPlan(**{**fields, **changes})


class PlayedAgent:
    """One agent: what the supervisor holds of it, and the other ends of its pipes."""

    def __init__(self, index: int) -> None:
        commands_read, commands_write = os.pipe()
        events_read, self.events_fd = os.pipe()
        stderr_read, self.stderr_fd = os.pipe()
        self.commands_fd = commands_read
        self._lines = Lines()
        self.process = Echo()
        tag = f"unit-{uuid.uuid4().hex}/{index}"
        pid = self.process.pid
        talk = Conversation(pid, commands_write, events_read, stderr_read)
        self.seen = Agent(index, f"node{index}", tag, talk, pid)
        for fd in (commands_read, commands_write):
            os.set_blocking(fd, False)

    def told(self) -> list[dict[str, Any]]:
        """Return the commands that have come since the last call."""
        try:
            data = os.read(self.commands_fd, 1 << 20)
        except BlockingIOError:
            return []
        return self._lines.feed(data)

    def told_names(self) -> list[str]:
        """Return the names of those commands."""
        return [command["command"] for command in self.told()]

    @property
    def is_alive(self) -> bool:
        """Its process was not killed."""
        return self.process.answers()

    def close(self) -> None:
        """Let go of all that it has."""
        self.process.close()
        self.seen.talk.close()
        for fd in (self.commands_fd, self.events_fd, self.stderr_fd):
            os.close(fd)


def rank_ended(rank: int, exit_code: int = 0, **changes: Any) -> dict[str, Any]:
    """Return the event of a rank's end."""
    return {
        "event": "rank_ended",
        "rank": rank,
        "pid": 7,
        "exit_code": exit_code,
        **_END,
        **changes,
    }


def report(message: str, kind: str = "ValueError") -> Mapping[str, Any]:
    """Return the report of a rank that has raised."""
    place = {"file": "train.py", "line": 3, "source": "", "threads": [], "traceback": ""}
    return {"report": "error", "type": kind, "message": message, **place}
