"""Tests connections between nodes: each listens and the others connect. Also reads their clocks."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from distrun.listen import is_loopback
from distrun.nodes.probes import Probes
from distrun.probe.host import LOOPBACK_INTERFACE
from distrun.probe.serve import MOST_AT_ONCE
from distrun.probe.snapshot import Node, Reach
from distrun.wire import Message

DEFAULT_MASTER_PORT = 29500
_CONNECT_LIMIT_S = 6.0
"""Twice a probe's time limit for connections that it tries at once."""
_ANSWER_LIMIT_S = 5.0
_CLOCK_ROUNDS = 3
_UNKNOWN_NAME = "the name does not resolve"


def with_clocks(nodes: Sequence[Node], probes: Probes) -> list[Node]:
    """Return the nodes with the offsets of their clocks to this machine's.

    One node after another: answers of others at the same time would be read too late.
    """
    return [node if node.problem else _with_clock(node, probes) for node in nodes]


def _with_clock(node: Node, probes: Probes) -> Node:
    (probe,) = (probe for probe in probes.probes if probe.name == node.name)
    rounds: list[tuple[float, float]] = []
    for _ in range(_CLOCK_ROUNDS):
        before, began = time.time(), time.monotonic()
        probe.send({"clock": True})
        answers = probes.answers({node.name: 1}, _ANSWER_LIMIT_S)[node.name]
        took_s = time.monotonic() - began
        if not answers or not isinstance(now := answers[0].get("now"), (int, float)):
            return node
        rounds.append((took_s / 2, now - (before + took_s / 2)))
    error_s, offset_s = min(rounds)  # the shortest round trip is the most exact
    host = replace(node.host, clock_offset_s=offset_s, clock_offset_error_s=error_s)
    return replace(node, host=host)


def with_reaches(
    nodes: Sequence[Node],
    probes: Probes,
    master_port: int | None = None,
    known: Mapping[str, Sequence[str]] | None = None,
    *,
    called: Mapping[str, str] = MappingProxyType({}),
) -> list[Node]:
    """Return the nodes with the results of connecting from each to each other.

    Args:
        nodes: Those that could not be read are left out.
        probes: Their probes.
        master_port: Port of the rendezvous on the first node; None: none is tried.
        known: Addresses to try for each node, in order, until one is no loopback address;
            None: its name, else its hostname, else its addresses.
        called: Names on the network of nodes that have another name.

    Returns:
        The nodes, without connections that a probe did not report in time.
    """
    healthy = [node for node in nodes if not node.problem]
    if len(healthy) < 2:
        return list(nodes)
    found, ports = _listen(healthy, probes, master_port)
    names = known or {
        node.name: addresses_of(node, healthy, called.get(node.name, "")) for node in healthy
    }
    tries = [
        _Try(source.name, target.name, port, tuple(names[target.name]), known is not None)
        for source in healthy
        for target in healthy
        for port in ports[target.name]
        if source is not target
    ]
    _connect(tries, probes)
    found += [each.result() for each in tries if each.problem is not None]
    by_source: dict[str, list[Reach]] = {node.name: [] for node in nodes}
    for each in found:
        by_source[each.source].append(each)
    return [replace(node, reaches=tuple(by_source[node.name])) for node in nodes]


def _listen(
    nodes: Sequence[Node], probes: Probes, master_port: int | None
) -> tuple[list[Reach], dict[str, list[int]]]:
    """Let each node listen; return the ports that failed, and the open ports."""
    wanted: dict[str, list[Message]] = {node.name: [{"listen": 1}] for node in nodes}
    if master_port is not None:
        wanted[nodes[0].name].append({"listen": 1, "port": master_port})
    failed, ports = [], {}
    for name, answers in _asked(wanted, probes, _ANSWER_LIMIT_S).items():
        ports[name] = [answer["port"] for answer in answers if isinstance(answer.get("port"), int)]
        failed += [
            Reach(name, name, "", request.get("port", 0), str(answer["problem"]))
            for request, answer in zip(wanted[name], answers, strict=False)
            if answer.get("problem")
        ]
    return failed, ports


@dataclass
class _Try:
    """A connection from one node to a port of another."""

    source: str
    target: str
    port: int
    names: tuple[str, ...]
    """Addresses to try, in this order."""
    try_all: bool = False
    """Try the next address after any problem, not only after an unknown name."""
    problem: str | None = None
    """None if its probe did not answer: the result is then unknown."""
    done: int = 0
    ends: tuple[str, str] = ("", "")
    """The addresses of both ends of the connection."""

    @property
    def ended(self) -> bool:
        """Whether no further address needs to be tried."""
        if self.problem is None or self.done == len(self.names):
            return True
        if self.try_all:  # a name may mean the loopback interface there
            return not self.problem and not is_loopback(self.ends[1])
        return not self.problem or (self.done == 1 and self.problem != _UNKNOWN_NAME)

    def take(self, answer: Message) -> None:
        """Take the answer to the address that was tried."""
        problem = answer.get("problem")
        self.problem = None if problem is None else str(problem)
        self.ends = str(answer.get("from", "")), str(answer.get("to", ""))
        self.done += 1

    def result(self) -> Reach:
        """Return the result."""
        at = self.names[max(0, self.done - 1)]
        return Reach(self.source, self.target, at, self.port, self.problem or "", *self.ends)


def addresses_of(target: Node, nodes: Sequence[Node], called: str = "") -> tuple[str, ...]:
    """Return ways to address a node: the requested name, its hostname, its addresses.

    An address that several nodes have belongs to a local bridge, and cannot be used.

    Args:
        target: The node.
        nodes: All nodes.
        called: Its name on the network; "": its own name.
    """
    everyone = [address for node in nodes for nic in node.host.nics for address in nic.addresses]
    own = [a for nic in target.host.nics if nic.up for a in nic.addresses if everyone.count(a) == 1]
    names = (called or target.name, target.host.hostname, *own)
    return tuple(dict.fromkeys(filter(None, names)))


def interface_of(node: Node, address: str) -> str:
    """Return a node's interface that has an address; "" if none is known to have it."""
    if is_loopback(address):
        return LOOPBACK_INTERFACE
    for nic in node.host.nics:
        if address in (*nic.addresses, *nic.ipv6_addresses):
            return nic.name
    return ""


def _connect(tries: Sequence[_Try], probes: Probes) -> None:
    left = list(tries)
    while left:
        wanted: dict[str, list[Message]] = {}
        for each in left:
            request = {"connect": [each.names[each.done], each.port]}
            wanted.setdefault(each.source, []).append(request)
        in_turn = math.ceil(max(map(len, wanted.values())) / MOST_AT_ONCE)
        answers = _asked(wanted, probes, _CONNECT_LIMIT_S * in_turn)
        for each in left:
            each.take(answers[each.source].pop(0) if answers[each.source] else {})
        left = [each for each in left if not each.ended]


def _asked(
    wanted: Mapping[str, Sequence[Message]], probes: Probes, limit_s: float
) -> dict[str, list[Message]]:
    """Send requests to nodes, by name, and return their answers in the same order."""
    for probe in probes.alive:
        for request in wanted.get(probe.name, ()):
            probe.send(request)
    counts = {name: len(requests) for name, requests in wanted.items()}
    return probes.answers(counts, limit_s)
