"""What a rule is, and what it finds. A rule is pure: snapshots in, findings out."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from distrun.checks.limits import Limits
from distrun.probe.snapshot import Node


class Severity(enum.IntEnum):
    """How bad it is; the greater, the worse."""

    SKIP = 0
    """It could not be judged, and why is told: never a pass."""
    INFO = 1
    WARN = 2
    """Slower, or at risk."""
    FAIL = 3
    """A distributed job would fail, hang or lie."""


@dataclass(frozen=True)
class Job:
    """What the snapshots are judged for."""

    nproc_per_node: int = 1
    nnodes: int = 1
    uses_gpus: bool = False
    """The job would run on GPUs; else what is wrong with them is no more than INFO."""
    master_port: int | None = None


@dataclass(frozen=True)
class Observation:
    """What a rule saw that is worth a line."""

    severity: Severity
    observed: str
    expected: str
    node: str = ""
    """"" speaks of all of them."""
    device: str = ""
    """`GPU 3 GPU-5f… 0000:3b:00.0`, `eth0`, `/dev/shm`; "" for the node as a whole."""


Judge = Callable[[Sequence[Node], Job, Limits], Iterator[Observation]]
"""All nodes, the job and the thresholds in; what is worth a line out."""


@dataclass(frozen=True)
class Rule:
    """One rule: what it looks for, and why, and what cures it."""

    id: str
    """Stable and lower-case: `gpu.ecc.uncorrected`, `host.shm`, `nodes.driver`."""
    title: str
    why: str
    """Why it matters, in a sentence or two."""
    fix: str
    """The command or the setting that cures it."""
    source: str
    """Where the rule or its limit comes from."""
    judge: Judge
    quick: bool = False
    """`distrun launch` runs it too."""
    gpus_only: bool = False
    """It matters to jobs on GPUs alone: for others it is INFO at most."""


@dataclass(frozen=True)
class Finding:
    """One observation of one rule, with all that a reader needs."""

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
