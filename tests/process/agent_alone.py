"""An agent with real ranks; the test is its supervisor, and asks as often as it likes."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distrun.env import scrubbed
from distrun.plan.model import NodePlan, Program
from distrun.streams import NOTHING_HANDED
from distrun.supervise.agents import start_agent
from tests.unit.machines import planned

Event = dict[str, Any]
_LIMIT_S = 60.0


class AgentAlone:
    """The agent of a run of one node, whose ranks it has started.

    Args:
        script: What its ranks run.
        nproc: How many ranks.
        warm: They are forked from the agent's interpreter.
        environ: Added to the environment.
        args: The script's.
    """

    def __init__(
        self,
        script: Path,
        nproc: int = 2,
        *,
        warm: bool = True,
        environ: Mapping[str, str] | None = None,
        args: tuple[str, ...] = (),
    ) -> None:
        self.printed: dict[int, bytes] = {}
        self.exit_codes: dict[int, int] = {}
        self.pids: dict[int, int] = {}
        self._events: deque[Event] = deque()
        self._agent = start_agent(
            NodePlan(0, "node0", "127.0.0.1", {}),
            f"test{os.getpid()}-{time.monotonic_ns()}",
            {**scrubbed(os.environ), "OMP_NUM_THREADS": "1", **(environ or {})},
            program=Program(str(script), args) if warm else None,
            streams=NOTHING_HANDED,
            workdir=str(script.parent),
            bootstrap=False,
        )
        plan = planned(script=str(script), args=args, nproc_per_node=nproc)
        plan = replace(plan, master_port=self.wait_for("node_joined")["free_port"])
        arguments = plan.torchrun_arguments(0)
        self.send(
            "start",
            arguments=arguments,
            restarts=0,
            max_restarts=0,
            by_itself=False,
            metrics_every_s=0.0,
        )

    def send(self, command: str, **fields: Any) -> None:
        """Send it a command."""
        self._agent.talk.send({"command": command, **fields})
        while self._agent.talk.flush():
            pass

    def wait_for(self, *names: str) -> Event:
        """Return the next event of one of these names."""
        deadline = time.monotonic() + _LIMIT_S
        while time.monotonic() < deadline:
            while self._events:
                if (event := self._events.popleft())["event"] in names:
                    return event
            self._read()
        pytest.fail(f"waited in vain for {names}; ranks printed {self.printed}")

    def wait_for_words(self, words: bytes, *ranks: int) -> None:
        """Wait until ranks have printed something."""
        deadline = time.monotonic() + _LIMIT_S
        while not all(words in self.printed.get(rank, b"") for rank in ranks):
            assert time.monotonic() < deadline, f"no {words!r} in {self.printed}"
            self._read()

    def look(self) -> dict[int, Event]:
        """Ask once; return what is known of each live rank."""
        self.send("look")
        return {told["rank"]: told for told in self.wait_for("looked")["ranks"]}

    def stacks(self, nranks: int) -> dict[int, Event]:
        """Ask once for all that can be known of each of so many live ranks."""
        self.send("stacks")
        return {told["rank"]: told for told in (self.wait_for("stacks") for _ in range(nranks))}

    def look_until_the_end(self, nranks: int, every_s: float) -> int:
        """Ask in an interval until all ranks have ended; return how often one has answered."""
        answers = 0
        while len(self.exit_codes) < nranks:
            answers += sum(told["answer"] is not None for told in self.look().values())
            self._read(every_s)
        return answers

    def end(self) -> None:
        """End it with all that is left; then its pipes are at their end."""
        self.send("kill")
        self.send("exit", linger_s=0.0)
        self.wait_for("swept")
        self._agent.talk.close()
        os.waitpid(self._agent.pid, 0)

    def _read(self, limit_s: float = 1.0) -> None:
        talk = self._agent.talk
        if not select.select([talk.messages_fd], [], [], limit_s)[0]:
            return
        if (messages := talk.read()) is None:
            pytest.fail(f"the agent has ended: {talk.read_words().decode(errors='replace')}")
        for event, data in messages:
            rank = event.get("rank", -1)
            if event["event"] == "output":
                self.printed[rank] = self.printed.get(rank, b"") + bytes(data)
                continue
            if event["event"] == "rank_ended":
                self.exit_codes[rank] = event["exit_code"]
            elif event["event"] == "rank_started":
                self.pids[rank] = event["pid"]
            self._events.append(event)
