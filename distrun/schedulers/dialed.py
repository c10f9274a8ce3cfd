"""Nodes that have dialed in to this one, their head: each command goes through its hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from distrun.nodes.boot import line_for_sh
from distrun.schedulers.place import Place
from distrun.spec.job import Settings

_RELAY = "distrun.nodes.dial.relay"
_HEAD = "0"


@dataclass(frozen=True)
class Dialed:
    """The nodes of one run, by their numbers.

    Args:
        path: The socket of the hub.
        names: The name of each node that is there or was expected.
        addresses: The address of each node that is there.
    """

    path: str
    names: Mapping[int, str]
    addresses: Mapping[int, str]

    @contextmanager
    def nodes(self, settings: Settings) -> Iterator[list[Place]]:
        """Yield the nodes; one that has not dialed in cannot be reached."""
        yield [
            Place(name, str(number), address=self.addresses.get(number, ""))
            for number, name in sorted(self.names.items())
        ]

    def command(self, place: Place, module: str, arguments: Sequence[str]) -> list[str]:
        """Return the command that runs a module there; of the head itself, without the hub."""
        there = ["sh", "-c", line_for_sh(module, arguments, place.python)]
        if place.target == _HEAD:
            return there
        return ["sh", "-c", line_for_sh(_RELAY, [self.path, place.target, *there])]

    def shell(self, place: Place) -> list[str]:
        """Return []: rsync does not go through the hub."""
        return []

    def cure(self, name: str, problem: str) -> str:
        """Return what to do about a node that cannot be reached, "" if that is unknown."""
        if "No module named" in problem:
            return "distrun is missing there: all nodes run the same image"
        return ""
