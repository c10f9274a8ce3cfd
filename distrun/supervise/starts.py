"""Starts agents, within the limits of the hosts and of this user."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from distrun import env
from distrun.nodes.conversation import LOG_INS_AT_ONCE
from distrun.nodes.handed import Handed
from distrun.plan.model import LaunchPlan, NodePlan
from distrun.processes import raise_descriptor_limit, widen_pipe
from distrun.streams import Streams
from distrun.supervise.agents import Agent, start_agent

_PIPES_NBYTES = 16 << 20
"""What the pipes of all agents may hold, a quarter of what Linux lets a user have: beyond that each
new pipe of this user, in any program, holds 8 KiB (pipe-user-pages-soft, pipe(7))."""
_WIDE_NBYTES, _USUAL_NBYTES = 1 << 20, 1 << 16


class Starts:
    """The agents that are still to be started.

    Args:
        run_id: The run.
        run_dir: Its directory.
        environ: The launcher's environment.
        streams: What the ranks have as stdin, stdout and stderr.
        handed: Agents that have been started for the first attempt, by the node's name.
    """

    def __init__(
        self,
        run_id: str,
        run_dir: Path,
        environ: Mapping[str, str],
        streams: Streams,
        handed: Mapping[str, Handed] = MappingProxyType({}),
    ) -> None:
        self._run_id, self._streams = run_id, streams
        self._handed, self._next_handed = dict[str, Handed](), dict(handed)
        self.environ, self._run_dir = env.scrubbed(environ), str(run_dir)
        """Of everything that is started for a node."""
        self._plan: LaunchPlan
        self._left: deque[NodePlan] = deque()
        self._first_limit: int | None = None

    def allow_more_files(self, plan: LaunchPlan) -> None:
        """Raise this process's limit of open files, unless ranks here would have it from here."""
        if all(node.command for node in plan.supervised):
            self._first_limit = raise_descriptor_limit()

    def begin(self, plan: LaunchPlan) -> None:
        """Prepare to start all agents of an attempt."""
        for unused in self._handed.values():
            unused.close()
        self._handed, self._next_handed = self._next_handed, {}
        self._plan, self._left = plan, deque((*plan.supervised, *plan.spares))

    def due(self, agents: Sequence[Agent]) -> Iterator[NodePlan]:
        """Yield the nodes to start now; of other machines, not too many log in at once.

        Args:
            agents: Those that have been started.
        """
        if not self._left:
            return
        free = LOG_INS_AT_ONCE - sum(agent.is_logging_in for agent in agents)
        while self._left and free > 0:
            node = self._left.popleft()
            free -= bool(node.command) and node.host not in self._handed
            yield node

    def start(self, node: NodePlan) -> Agent:
        """Start the agent of a node.

        Raises:
            OSError: The process cannot be started.
        """
        plan = self._plan
        environ = {**self.environ, **node.environ}
        if plan.own_node is None:  # else each node has another one
            environ[env.RUN_DIR] = self._run_dir
        agent = start_agent(
            node,
            self._run_id,
            environ,
            program=plan.program if plan.warm else None,
            streams=self._streams,
            workdir=plan.workdir,
            bootstrap=plan.bootstrap,
            soft_limit=self._first_limit,
            handed=self._handed.pop(node.host, None),
        )
        agent.standby = node.number not in {each.number for each in plan.nodes}
        nbytes = min(_WIDE_NBYTES, _PIPES_NBYTES // len(plan.supervised))
        if nbytes > _USUAL_NBYTES:
            widen_pipe(agent.talk.messages_fd, nbytes)
        return agent
