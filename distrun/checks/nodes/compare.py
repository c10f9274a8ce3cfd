"""Compares a fact between nodes: names the nodes that differ, or in a tie both groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distrun.checks.limits import Limits
from distrun.checks.nics import data_nics
from distrun.checks.rule import Judge, Observation, Severity, Workload
from distrun.checks.words import some
from distrun.probe.snapshot import Gpu, Host, Nic, Node, Nvml, Software

_MAX_NAMES = 7
_VERBS = {"run": "runs", "have": "has"}


@dataclass(frozen=True)
class Fact:
    """A fact of each node as text, and the words for a sentence about it."""

    read: Callable[[Node], str | None]
    """None: it is unknown, and `missing` has the reason."""
    verb: str = "run"
    """run or have."""
    noun: str = ""
    """Before the value: `driver`."""
    missing: Callable[[Node], str] = lambda node: "not read"


def field(part: Callable[[Node], Nvml | Host | Software], name: str, noun: str) -> Fact:
    """Return a fact that is one text field of a part of a node; "" counts as None."""

    def why(node: Node) -> str:
        return part(node).missing.get(name) or f"{noun} not read"

    return Fact(lambda node: getattr(part(node), name) or None, noun=noun, missing=why)


def gpu_field(name: str, noun: str, show: Callable[[Any], str]) -> Fact:
    """Return a fact that is a field of all GPUs of a node, each value once."""
    return _of_all(lambda node: node.nvml.present, name, noun, show)


def nic_field(name: str, noun: str, show: Callable[[Any], str]) -> Fact:
    """Return a fact that is a field of the interfaces that a job uses."""
    return _of_all(lambda node: data_nics(node.host), name, noun, show)


def _of_all(
    devices: Callable[[Node], Iterable[Gpu | Nic]],
    name: str,
    noun: str,
    show: Callable[[Any], str],
) -> Fact:
    def read(node: Node) -> str | None:
        values = {getattr(device, name) for device in devices(node)}
        if not values or None in values:
            return None
        return " and ".join(dict.fromkeys(map(show, sorted(values))))

    def why(node: Node) -> str:
        reasons = [device.missing.get(name) for device in devices(node)]
        return next(filter(None, reasons), f"{name} not read")

    return Fact(read, "have", noun, why)


def compared(fact: Fact, severity: Severity, among: Callable[[Node], bool] | None = None) -> Judge:
    """Make a rule of a comparison.

    Args:
        fact: What is compared.
        severity: The severity of a difference.
        among: Whether a node is compared; None for all.
    """

    def judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
        return compare([node for node in nodes if among is None or among(node)], fact, severity)

    return judge


def has_driver(node: Node) -> bool:
    """Return whether NVML answered; if not, `gpu.driver` reports it."""
    return not node.nvml.problem


def has_gpus(node: Node) -> bool:
    """Return whether there are GPUs; `nodes.gpu.count` reports nodes without."""
    return bool(node.nvml.present)


def compare(nodes: Sequence[Node], fact: Fact, severity: Severity) -> Iterator[Observation]:
    """Yield the difference, if there is one.

    Args:
        nodes: All nodes; a single one is not compared.
        fact: What is compared.
        severity: The severity of a difference.

    Yields:
        `3 of 4 nodes run driver 580.159; node2 runs 575.57`, and a SKIP for each node whose fact is
        unknown.
    """
    if len(nodes) < 2:
        return
    groups: dict[str, list[str]] = {}
    for node in nodes:
        value = fact.read(node)
        if value is None:
            yield Observation(Severity.SKIP, fact.missing(node), "", node.name)
        else:
            groups.setdefault(value, []).append(node.name)
    if len(groups) < 2:
        return
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    (usual, most), rest = ordered[0], ordered[1:]
    if len(most) == len(rest[0][1]):  # a tie: there is no minority
        text = "; ".join(
            _clause(some(names, _MAX_NAMES), value, fact, names) for value, names in ordered
        )
        yield Observation(severity, text, "the same on all nodes")
        return
    known = sum(map(len, groups.values()))
    clauses = [_clause(f"{len(most)} of {known} nodes", usual, fact, most)]
    # The later clauses need not repeat the noun.
    short = Fact(fact.read, fact.verb)
    clauses += [_clause(some(names, _MAX_NAMES), value, short, names) for value, names in rest]
    odd = [name for _, names in rest for name in names]
    expected = f"{fact.noun} {usual}".strip()
    yield Observation(severity, "; ".join(clauses), expected, odd[0] if len(odd) == 1 else "")


def _clause(who: str, value: str, fact: Fact, names: Sequence[str]) -> str:
    verb = fact.verb if len(names) > 1 else _VERBS[fact.verb]
    return " ".join(filter(None, (who, verb, fact.noun, value)))
