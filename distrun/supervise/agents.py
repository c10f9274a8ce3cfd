"""One node's agent as the supervisor sees it: a conversation, and what it has told."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distrun.agent_start import agent_command
from distrun.env import RUN_DIR
from distrun.nodes import conversation
from distrun.nodes.conversation import Conversation
from distrun.nodes.handed import Handed
from distrun.plan.model import NodePlan, Program
from distrun.processes import send, sweep
from distrun.silence import LOST_AFTER_S, TOLD_AFTER_S
from distrun.streams import Streams


@dataclass
class Agent:
    """A running agent. `index` is the node's number, which never changes."""

    index: int
    host: str
    tag: str
    talk: Conversation
    pid: int
    """The agent itself, on its own machine."""
    elsewhere: bool = False
    """It is on another machine."""
    node_rank: int = -1
    stage: str = "starting"
    joined: bool = False
    """It is ready to start its ranks."""
    free_port: int = 0
    """A port that was free on its machine when it joined."""
    stopped: bool = False
    """It has reported that none of its ranks lives after a stop."""
    succeeded: bool = False
    swept: bool = False
    """It has reported that no process of its node is left."""
    gone: bool = False
    killed: bool = False
    """It was killed by the supervisor."""
    ranks: dict[int, int] = field(default_factory=dict)
    """Live ranks and their pids."""
    begun: bool = False
    """All of its ranks have been started."""
    clock_offset_s: float = math.inf
    """What to add to a time of its clock to have ours; a little too much, by what its fastest
    message took."""
    why_lost: str = ""
    """Why the supervisor gave it up, if it did not end by itself."""
    was_silent: bool = False
    """It was given up because nothing came from it."""
    standby: bool = False
    """It gets no ranks in this attempt: it is a spare, or has come back."""
    handed: Handed | None = None
    """The launcher has started it."""

    @property
    def usable(self) -> bool:
        """Whether it was there to the end of its attempt."""
        return not self.gone or self.swept

    @property
    def is_logging_in(self) -> bool:
        """Whether it is on another machine, from where no word has come yet."""
        return self.elsewhere and not (self.pid or self.gone or self.handed)

    def send(self, command: str, **fields: Any) -> None:
        """Send a command to the agent."""
        self.talk.send({"command": command, **fields})

    def heard_clock(self, monotonic_s: float) -> None:
        """Compare the clocks by a message that has just come, with the time there when it left."""
        self.clock_offset_s = min(self.clock_offset_s, time.monotonic() - monotonic_s)

    def listen(self) -> str:
        """Return a notice if it is silent, and give it up after long: it sends a byte a second."""
        if not self.joined or self.gone:
            return ""
        if self.talk.silence.lost and not self.why_lost:
            self.why_lost = f"{self.host}: its agent said nothing for {LOST_AFTER_S:g} s"
            self.was_silent = True
            self.kill()  # its pipe ends: World.on_gone does the rest
        if not self.talk.silence.to_be_told:
            return ""
        return f"the agent of {self.host} has been silent for {TOLD_AFTER_S:g} s: is it stopped?"

    def give_up(self) -> None:
        """Kill it because the supervisor wants it to end."""
        self.killed = True
        self.kill()

    def kill(self) -> None:
        """Kill it with all processes of its node.

        Elsewhere its connection is cut: the node's last process then ends the rest.
        """
        if self.handed:
            self.handed.kill()
        else:
            send(self.talk.pid, signal.SIGKILL)
        if not self.elsewhere:
            send(self.pid, signal.SIGKILL)
            sweep(self.tag)

    def close(self) -> None:
        """Close its pipes, when it has ended; what is left here of the connection is killed."""
        self.talk.close()
        if self.handed:  # its client is no child of this process, which are swept
            self.handed.kill_all()


def live_ranks(agents: Sequence[Agent]) -> list[int]:
    """Return the ranks that have started and not ended, of agents that are not gone."""
    return sorted(rank for agent in agents if not agent.gone for rank in agent.ranks)


def start_agent(
    node: NodePlan,
    run_id: str,
    environ: Mapping[str, str],
    *,
    program: Program | None,
    streams: Streams,
    workdir: str,
    bootstrap: bool,
    soft_limit: int | None = None,
    handed: Handed | None = None,
) -> Agent:
    """Start the agent of one node: here, or with the command that reaches its machine.

    Args:
        node: The node.
        run_id: The run it belongs to.
        environ: The whole environment of an agent here, and so of its ranks.
        program: What warm ranks, forked from the agent's own interpreter, will find as
            its command line; None for cold ranks.
        streams: What the ranks have as stdin, stdout and stderr.
        workdir: The working directory on another machine.
        bootstrap: An agent on another machine has to be sent distrun.
        soft_limit: Of open files, for what reaches another machine; None: that of this process.
        handed: The connection to it, if it was started before.

    Raises:
        OSError: The process cannot be started.
    """
    tag = f"{run_id}/{node.number}"
    words, own_program = None, ""
    if program is not None:
        words = [*(["-m"] if program.module else []), program.path, *program.args]
        own_program = program.own
    if not node.command:
        return _start_here(node, tag, environ, words, streams)
    if handed is not None:
        talk = handed.opened()
    else:
        talk, child = conversation.start(node.command, bootstrap=bootstrap, soft_limit=soft_limit)
        child.returncode = 0  # as for an agent here
    agent = Agent(node.number, node.host, tag, talk, 0, elsewhere=True, handed=handed)
    own = {**node.environ, RUN_DIR: environ[RUN_DIR]}
    fed = streams.handed_fds[0] is not None
    there = {"apart": streams.apart, "handed_rank": streams.handed_rank, "fed": fed}
    order = {"words": words, "environ": own, "tag": tag, "streams": there, "workdir": workdir}
    order["own_program"] = own_program
    agent.talk.send(order)
    return agent


def _start_here(
    node: NodePlan, tag: str, environ: Mapping[str, str], words: list[str] | None, streams: Streams
) -> Agent:
    commands_read, commands_write = os.pipe()
    events_read, events_write = os.pipe()
    stderr_read, stderr_write = os.pipe()
    order = {
        "commands_fd": commands_read,
        "events_fd": events_write,
        "streams": streams.to_json(),
    }
    argv, environ = agent_command(words, environ, tag, order)
    try:
        # Its pid is waited for by the supervisor, which adopts orphans and must collect
        # every child anyway; so nothing of Popen is used after the start.
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stderr_write,  # what a sitecustomize prints must not be read as an event
            stderr=stderr_write,
            env=environ,
            start_new_session=True,
            pass_fds=[commands_read, events_write, *streams.open_fds],
        )
    except OSError:
        for fd in (commands_write, events_read, stderr_read):
            os.close(fd)
        raise
    finally:
        for fd in (commands_read, events_write, stderr_write):
            os.close(fd)
    child.returncode = 0  # keeps Popen's destructor from waiting for it
    talk = Conversation(child.pid, commands_write, events_read, stderr_read)
    return Agent(node.number, node.host, tag, talk, child.pid)
