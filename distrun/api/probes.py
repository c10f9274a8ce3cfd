"""Runs probes on several nodes at once: child processes that answer each line with a line."""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from distrun.errors import MachineError

_END_LIMIT_S = 1.0
_OF_SRUN = re.compile(r"srun: (error: .*: Exited with exit code \d+|Terminating )")
"""What srun prints after a step has ended; the reason is printed before."""
Answer = dict[str, Any]


class Probe:
    """One probe, started over ssh, by srun or directly.

    Args:
        name: The node.
        command: The command that starts it.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._said = tempfile.TemporaryFile()  # a pipe without a reader would fill up
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                start_new_session=True,  # Ctrl-C is handled here: closing stdin ends both ends
            )
        except OSError as error:
            self._said.close()
            raise MachineError(
                f"{command[0]} cannot be started: {error.strerror}",
                "it is needed to reach the nodes",
            ) from None
        assert self._child.stdin and self._child.stdout
        self._stdin, self._stdout = self._child.stdin, self._child.stdout
        self._rest = b""
        self.gone = ""
        """Why it has ended, as a sentence; "" while it runs."""
        self.late = False
        """Whether it is `gone` because it took too long; its earlier answers are valid."""

    def fileno(self) -> int:
        """Return the descriptor to read its answers from."""
        return self._stdout.fileno()

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request; if the probe has ended, `gone` reports it."""
        try:
            os.write(self._stdin.fileno(), json.dumps(request).encode() + b"\n")
        except OSError:
            pass

    def receive(self) -> list[Answer]:
        """Return the answers that have arrived; other output of the login shell is ignored."""
        data = os.read(self.fileno(), 1 << 16)
        if not data:
            self.gone = self._why_gone()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [answer for line in lines if isinstance(answer := _parsed(line), dict)]

    def _why_gone(self) -> str:
        try:
            code: int | None = self._child.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            code = None  # it has closed its pipe but still runs
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        own = [line for line in lines if not _OF_SRUN.match(line)]
        return (own or lines or [f"the probe ended with exit code {code}"])[-1].strip()

    def close(self) -> None:
        """Close its standard input, which ends it."""
        self._stdin.close()

    def end(self, deadline: float) -> None:
        """Wait for the end of a closed probe until a deadline, then kill it."""
        try:
            self._child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._stdout.close()
        self._said.close()


class Probes:
    """All probes.

    Args:
        commands: What starts each, by the node's name.
    """

    def __init__(self, commands: Mapping[str, Sequence[str]]) -> None:
        self.probes = [Probe(name, command) for name, command in commands.items()]

    @property
    def alive(self) -> list[Probe]:
        """The probes that may still answer."""
        return [probe for probe in self.probes if not probe.gone]

    def answers(self, wanted: Mapping[str, int], limit_s: float) -> dict[str, list[Answer]]:
        """Return this many answers of each; fewer of a probe that ends or is too late.

        Args:
            wanted: Number of answers by the node's name.
            limit_s: Time limit for all. A probe that exceeds it is ended: its answers could be
                mistaken for those to later requests.
        """
        found: dict[str, list[Answer]] = {name: [] for name in wanted}
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            for probe in self.alive:
                if wanted.get(probe.name):
                    selector.register(probe, selectors.EVENT_READ, probe)
            while selector.get_map() and (left_s := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left_s):
                    probe = key.data
                    found[probe.name] += probe.receive()
                    if probe.gone or len(found[probe.name]) >= wanted[probe.name]:
                        selector.unregister(probe)
            for key in selector.get_map().values():
                key.data.gone, key.data.late = f"no answer within {limit_s:g} s", True
        return found

    def close(self) -> None:
        """End all probes."""
        for probe in self.probes:
            probe.close()
        deadline = time.monotonic() + _END_LIMIT_S
        for probe in self.probes:
            probe.end(deadline)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
