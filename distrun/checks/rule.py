"""The types of rules and findings. A rule is a pure function from snapshots to findings."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from distrun.checks.limits import Limits
from distrun.probe.snapshot import Node


class Severity(enum.IntEnum):
    """Severity of a finding; a greater value is worse."""

    SKIP = 0
    """It could not be judged, with a reason; never counts as passed."""
    INFO = 1
    WARN = 2
    """Slower, or at risk."""
    FAIL = 3
    """A distributed job would fail, hang or compute wrong results."""


@dataclass(frozen=True)
class Workload:
    """The job that the snapshots are judged for, as far as rules need it."""

    nproc_per_node: int = 1
    nnodes: int = 1
    uses_gpus: bool = False
    """The job would run on GPUs; else findings about GPUs are INFO at most."""
    master_port: int | None = None


@dataclass(frozen=True)
class Observation:
    """One thing that a rule reports."""

    severity: Severity
    observed: str
    expected: str
    node: str = ""
    """"": all nodes."""
    device: str = ""
    """`GPU 3 GPU-5f… 0000:3b:00.0`, `eth0`, `/dev/shm`; "" for the node as a whole."""


Judge = Callable[[Sequence[Node], Workload, Limits], Iterator[Observation]]
"""From all nodes, the job and the thresholds to observations."""


@dataclass(frozen=True)
class Rule:
    """One rule: what it checks, why, and how to fix it."""

    id: str
    """Stable and lower-case: `gpu.ecc.uncorrected`, `host.shm`, `nodes.driver`."""
    title: str
    why: str
    """Why it matters, in one or two sentences."""
    fix: str
    """The command or the setting that fixes it."""
    source: str
    """The source of the rule or of its limit."""
    judge: Judge
    quick: bool = False
    """`distrun launch` runs it too."""
    gpus_only: bool = False
    """It matters only to jobs on GPUs: for others it is INFO at most."""


@dataclass(frozen=True)
class Finding:
    """One observation of one rule, with the rule's texts."""

    id: str
    severity: Severity
    node: str
    device: str
    observed: str
    expected: str
    why: str
    fix: str
    source: str


def matches(pattern: str, rule_id: str) -> bool:
    """Return whether `gpu.ecc.mode`, or `gpu.*`, names a rule."""
    if pattern.endswith(".*"):
        return rule_id.startswith(pattern[:-1])
    return rule_id == pattern
