"""Asks programs on several nodes at once: each answers every request with one message."""

from __future__ import annotations

import re
import selectors
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from distrun.errors import MachineError
from distrun.nodes import conversation
from distrun.wire import Message

_END_LIMIT_S = 1.0
_OF_SRUN = re.compile(r"srun: (error: .*: Exited with exit code \d+|Terminating )")
"""What srun prints after a step has ended; the reason is printed before."""


class Probe:
    """One probe, started over ssh, by srun or directly.

    Args:
        name: The node.
        command: The command that starts it.
        bootstrap: It has to be sent distrun.
        soft_limit: Its limit of open files, where this is passed on; None: that of this process.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        bootstrap: bool = False,
        soft_limit: int | None = None,
    ) -> None:
        self.name = name
        self._command, self._bootstrap, self._soft_limit = command, bootstrap, soft_limit
        self._requests: list[Message] = []
        self.child: subprocess.Popen[bytes] | None = None
        self.gone = ""
        """Why it has ended, as a sentence; "" while it runs or waits for its start."""
        self.late = False
        """Whether it is `gone` because it took too long; its earlier answers are valid."""

    def start(self) -> None:
        """Start it.

        Raises:
            MachineError: The command cannot be started.
        """
        try:
            self.talk, self.child = conversation.start(
                self._command, bootstrap=self._bootstrap, soft_limit=self._soft_limit
            )
        except OSError as error:
            raise MachineError(
                f"{self._command[0]} cannot be started: {error.strerror}",
                "it is needed to reach the nodes",
            ) from None
        for request in self._requests:
            self.talk.send(request)

    def send(self, request: Message) -> None:
        """Send a request; if the probe has ended, `gone` reports it."""
        if self.child is None:
            self._requests.append(request)
        else:
            self.talk.send(request)

    def receive(self) -> list[Message]:
        """Return the answers that have arrived; other output of the login shell is ignored."""
        found = self.talk.read()
        if found is None:
            self.gone = self._why_gone()
        return [message for message, _ in found or ()]

    def _why_gone(self) -> str:
        assert self.child is not None
        try:
            code: int | None = self.child.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            code = None  # it has closed its pipe but still runs
        with selectors.DefaultSelector() as selector:
            selector.register(self.talk.words_fd, selectors.EVENT_READ)
            while selector.select(0) and self.talk.read_words():
                pass
        lines = self.talk.last_lines
        own = [line for line in lines if not _OF_SRUN.match(line)]
        return (own or lines or [f"the probe ended with exit code {code}"])[-1]


Told = Callable[[Probe, Sequence[Message]], None]


class Probes:
    """All probes.

    Args:
        commands: What starts each, by the node's name.
        bootstrap: They have to be sent distrun.
        soft_limit: Their limit of open files, where this is passed on; None: that of this process.

    Raises:
        MachineError: A command cannot be started.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        bootstrap: bool = False,
        soft_limit: int | None = None,
    ) -> None:
        self.probes = [
            Probe(name, command, bootstrap=bootstrap, soft_limit=soft_limit)
            for name, command in commands.items()
        ]
        self._unstarted = list(reversed(self.probes))
        self._starting: set[Probe] = set()
        """Those that have not answered yet."""
        try:
            self._start_some()
        except BaseException:  # also Ctrl-C: those that were started must end
            self.close()
            raise

    @property
    def alive(self) -> list[Probe]:
        """The probes that may still answer."""
        return [probe for probe in self.probes if not probe.gone]

    def _start_some(self) -> list[Probe]:
        """Start as many as may be starting at once; return them."""
        started = []
        while self._unstarted and len(self._starting) < conversation.LOG_INS_AT_ONCE:
            probe = self._unstarted.pop()
            probe.start()
            self._starting.add(probe)
            started.append(probe)
        return started

    def answers(
        self, wanted: Mapping[str, int], limit_s: float, told: Told = lambda *_: None
    ) -> dict[str, list[Message]]:
        """Return this many answers of each; fewer of a probe that ends or is too late.

        Args:
            wanted: Number of answers by the node's name.
            limit_s: Time limit for all. A probe that exceeds it is ended: its answers could be
                mistaken for those to later requests.
            told: Called with each probe that has answered or ended, and its answers.
        """
        found: dict[str, list[Message]] = {name: [] for name in wanted}
        awaited = {probe for probe in self.alive if wanted.get(probe.name)}
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            for probe in awaited:
                _listen(selector, probe)
            while awaited and (left_s := deadline - time.monotonic()) > 0:
                if [probe for probe in awaited if probe.child and probe.talk.flush()]:
                    left_s = min(left_s, 0.02)  # a full pipe
                for key, _ in selector.select(left_s):
                    probe = key.data
                    if key.fd == probe.talk.words_fd:
                        if not probe.talk.read_words():
                            selector.unregister(key.fd)
                    elif probe in awaited:
                        found[probe.name] += probe.receive()
                        if found[probe.name] or probe.gone:
                            self._starting.discard(probe)
                        if probe.gone or len(found[probe.name]) >= wanted[probe.name]:
                            awaited.remove(probe)
                            told(probe, found[probe.name])
                            selector.unregister(key.fd)
                for probe in self._start_some():
                    _listen(selector, probe)
            for probe in awaited:
                probe.gone, probe.late = f"no answer within {limit_s:g} s", True
        return found

    def become_agents(self, names: Collection[str], limit_s: float) -> list[Probe]:
        """Make these probes the agents of their nodes; return those that are so now.

        They are none of the probes any more; the others may still answer.
        """
        asked = [probe for probe in self.alive if probe.name in names]
        for probe in asked:
            probe.send({"agent": True})
        found = self.answers({probe.name: 1 for probe in asked}, limit_s)
        become = [probe for probe in asked if found[probe.name] == [{"agent": True}]]
        self.probes = [probe for probe in self.probes if probe not in become]
        return become

    def close(self) -> None:
        """End all probes."""
        started = [probe for probe in self.probes if probe.child is not None]
        for probe in started:
            probe.talk.close()
        conversation.end([probe.child for probe in started if probe.child], _END_LIMIT_S)


def _listen(selector: selectors.BaseSelector, probe: Probe) -> None:
    if probe.child is not None:
        selector.register(probe.talk.messages_fd, selectors.EVENT_READ, probe)
        selector.register(probe.talk.words_fd, selectors.EVENT_READ, probe)
