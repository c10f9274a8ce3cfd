"""Findings as lines: equal findings on many devices or nodes are one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distrun.api.check import CheckReport, Finding, Severity, in_short

_MOST_NODES = 4


@dataclass(frozen=True)
class Line:
    """One observation, and all its places."""

    finding: Finding
    """One of the equal findings."""
    where: str
    """`GPUs 0-3 on node1, node2`; "" if it is about everything."""

    @property
    def text(self) -> str:
        """The place and the observation, in a sentence."""
        seen = self.finding
        told = not self.where or self.where in seen.observed
        text = seen.observed if told else f"{self.where}: {seen.observed}"
        return f"{text}, expected {seen.expected}" if seen.expected else text


def lines_of(report: CheckReport) -> list[Line]:
    """Return the lines of some findings, the worst first."""
    merged: dict[tuple[object, ...], list[Finding]] = {}
    for finding in report.findings:
        seen = (finding.severity, finding.id, finding.observed, finding.expected, finding.fix)
        merged.setdefault(seen, []).append(finding)
    nnodes = len(report.nodes)
    return [
        Line(found[0], where([(f.node, f.device) for f in found], nnodes))
        for found in merged.values()
    ]


def where(places: Iterable[tuple[str, str]], nnodes: int) -> str:
    """Return `GPUs 0-3 on node1` for pairs of a node and a device of it.

    Args:
        places: The pairs; "" for a whole node, or all nodes.
        nnodes: How many nodes there are; a single one is not named.
    """
    devices: dict[str, list[str]] = {}
    for node, device in places:
        devices.setdefault(node, []).append(device)
    nodes: dict[tuple[str, ...], list[str]] = {}
    for node, names in devices.items():
        nodes.setdefault(tuple(names), []).append(node)
    return "; ".join(filter(None, (_on(names, of, nnodes) for names, of in nodes.items())))


def _on(devices: Sequence[str], nodes: list[str], nnodes: int) -> str:
    what = _devices([device for device in devices if device])
    named = [node for node in nodes if node]
    if nnodes == 1 or not named:
        return what
    if len(named) == nnodes:
        of = "both nodes" if nnodes == 2 else f"all {nnodes} nodes"
    elif len(named) > _MOST_NODES:
        of = f"{', '.join(named[: _MOST_NODES - 1])} and {len(named) - _MOST_NODES + 1} more"
    else:
        of = ", ".join(named)
    return f"{what} on {of}" if what else of


def _devices(names: Sequence[str]) -> str:
    """Return the whole name of one device, the numbers of several GPUs, or a list."""
    return names[0] if len(set(names)) == 1 else in_short(names)


def summary(lines: Iterable[Line]) -> str:
    """Return `1 failure, 2 warnings, 3 notes`, or `no problems found`."""
    counts = dict.fromkeys(Severity, 0)
    for line in lines:
        counts[line.finding.severity] += 1
    words = [
        count(counts[Severity.FAIL], "failure"),
        count(counts[Severity.WARN], "warning"),
        count(counts[Severity.INFO], "note"),
    ]
    return ", ".join(filter(None, words)) or "no problems found"


def count(number: int, word: str) -> str:
    """Return `2 warnings`; "" for 0."""
    return f"{number} {word}{'s' * (number != 1)}" if number else ""
