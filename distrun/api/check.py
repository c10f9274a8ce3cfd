"""Check machines before a job is launched on them: read them, judge them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from distrun.api.nodes import Nodes, open_nodes
from distrun.api.reach import DEFAULT_MASTER_PORT
from distrun.api.rules import ignored
from distrun.checks.judge import judge
from distrun.checks.limits import Limits
from distrun.checks.registry import RULES, RULES_BY_ID
from distrun.checks.rule import Finding, Job, Rule, Severity
from distrun.checks.skips import in_short
from distrun.plan.devices import MAX_AUTO_NPROC
from distrun.probe.snapshot import Gpu, Node, Nvml
from distrun.spec.check import limits_of
from distrun.spec.job import Settings
from distrun.spec.snapshot import read_snapshots


@dataclass(frozen=True)
class CheckReport:
    """What was read, and what is to be said of it."""

    nodes: tuple[Node, ...]
    job: Job
    """What they were judged for."""
    findings: tuple[Finding, ...]
    """The worst first."""
    exit_code: int
    """What `distrun check` would have exited with."""


def check(
    settings: Settings | None = None,
    *,
    on: str = "",
    python: str = "",
    recorded: Sequence[Path] = (),
    ignore: Sequence[str] = (),
) -> CheckReport:
    """Read this machine, or every node of a job, and judge; prints nothing.

    Args:
        settings: The job they are to run; a `Job` will do.
        on: local, ssh or slurm; "" is ssh where the settings name hosts, else local.
        python: The interpreter on other machines; "" tries this one's path, then python3.
        recorded: Files of `--save` to judge instead.
        ignore: Ids of rules to leave out, beside those of the settings.

    Raises:
        UsageError: A file, an id or the settings are wrong.
    """
    settings = settings or Settings()
    if recorded:
        nodes = [node for path in recorded for node in read_snapshots(path, Node)]
        return judged(nodes, settings, ignore)
    with closing(open_nodes(settings, on=on, python=python)) as there:
        return judged(there.whole_picture(settings.master_port), settings, ignore)


def judged(nodes: Sequence[Node], settings: Settings, ignore: Sequence[str] = ()) -> CheckReport:
    """Judge nodes that were read.

    Raises:
        UsageError: An id, or a limit of the settings, is wrong.
    """
    job = _job(nodes, settings)
    limits = limits_of(settings.check, Limits)
    findings = judge(nodes, job, limits, ignore=ignored(settings, ignore))
    return CheckReport(
        tuple(nodes), job, findings, exit_code_of(nodes, findings, strict=settings.strict)
    )


def exit_code_of(nodes: Sequence[Node], findings: Sequence[Finding], *, strict: bool) -> int:
    """Return 3 if a probe could not finish, 1 if something failed, else 0."""
    if any(node.problem or node.nvml.problem_kind == "hang" for node in nodes):
        return 3
    worst = Severity.WARN if strict else Severity.FAIL
    return int(any(finding.severity >= worst for finding in findings))


def _job(nodes: Sequence[Node], settings: Settings) -> Job:
    gpus = max((len(node.nvml.gpus) for node in nodes), default=0)
    asked = settings.gpus is not None or settings.nproc_per_node == "gpu"
    uses_gpus = asked or any(
        node.software.torch_cuda and node.nvml.problem_kind not in ("absent", "not_asked")
        for node in nodes
    )
    cores = min((node.host.usable_cores or 1 for node in nodes if not node.problem), default=1)
    nproc = _nproc(settings, gpus if uses_gpus else 0, max(1, int(cores)))
    here = len(nodes) == 1 and not settings.hosts
    return Job(
        nproc_per_node=nproc * settings.nodes.max if here else nproc,  # emulated nodes share it
        nnodes=len(nodes),
        uses_gpus=uses_gpus,
        master_port=settings.master_port or (None if here else DEFAULT_MASTER_PORT),
    )


def _nproc(settings: Settings, gpus: int, cores: int) -> int:
    """Return the ranks of a node, as a launch would choose them on the best of these nodes."""
    asked = settings.nproc_per_node
    if isinstance(asked, int):
        return asked
    if asked == "cpu" or not gpus:
        return cores if asked == "cpu" else min(MAX_AUTO_NPROC, cores)
    named = (settings.gpus or "").removeprefix("free:")
    if settings.gpus and settings.gpus.startswith("free:"):
        return int(named)
    return len(named.split(",")) if named else gpus


__all__ = [
    "RULES",
    "RULES_BY_ID",
    "CheckReport",
    "Finding",
    "Gpu",
    "Job",
    "Limits",
    "Node",
    "Nodes",
    "Nvml",
    "Rule",
    "Severity",
    "check",
    "in_short",
    "judged",
    "open_nodes",
]
