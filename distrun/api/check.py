"""Checks machines before a launch: reads their snapshots and judges them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distrun.api.recorded import read_recorded
from distrun.api.rules import ignored
from distrun.api.visible_gpus import as_ranks_see_it, names_gpus
from distrun.checks.judge import judge
from distrun.checks.limits import Limits
from distrun.checks.registry import RULES
from distrun.checks.rule import Finding, Severity, Workload
from distrun.checks.skips import in_short
from distrun.errors import UsageError
from distrun.nodes.machines import Machines
from distrun.nodes.reach import DEFAULT_MASTER_PORT
from distrun.plan.devices import ranks_of_node
from distrun.probe.snapshot import Gpu, Measured, Node
from distrun.schedulers.registry import name_of, opened
from distrun.spec.check import limits_of
from distrun.spec.job import Settings
from distrun.spec.read import with_hosts

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class CheckReport:
    """The snapshots and the findings."""

    nodes: tuple[Node, ...]
    job: Workload
    """The workload that they were judged for."""
    findings: tuple[Finding, ...]
    """The worst first."""
    exit_code: int
    """The exit code of `distrun check`."""
    ignored: tuple[str, ...] = ()
    """Ids of ignored rules, or prefixes such as `gpu.*`."""


def check(
    settings: Settings | None = None,
    *,
    recorded: Sequence[Path] = (),
    ignore: Sequence[str] = (),
) -> CheckReport:
    """Read and judge this machine, or every node of a job; prints nothing.

    Args:
        settings: The settings of the job; a `Job` works too.
        recorded: Files of `--save` to judge instead.
        ignore: Ids of rules to ignore, in addition to those of the settings.

    Raises:
        UsageError: A file, an id or the settings are wrong.
        MachineError: ssh or Slurm is missing, or Slurm grants no nodes.
    """
    settings = with_hosts(settings or Settings())
    if recorded:
        return judged(read_recorded(recorded), settings, ignore)
    with opened(settings) as (_, machines):
        nodes = machines.whole_picture(settings.master_port)
    return judged(nodes, settings, ignore, emulated=emulates(settings))


def emulates(settings: Settings) -> bool:
    """Return whether all nodes of the settings are emulated on this machine."""
    return name_of(settings) == "local" and settings.nodes.max > 1


def judged(
    nodes: Sequence[Node],
    settings: Settings,
    ignore: Sequence[str] = (),
    *,
    emulated: bool = False,
) -> CheckReport:
    """Judge snapshots of nodes; of their GPUs, those that the job would see.

    Args:
        nodes: The nodes.
        settings: The job; without `gpus`, CUDA_VISIBLE_DEVICES of each node applies.
        ignore: Ids of rules to ignore, in addition to those of the settings.
        emulated: Whether all nodes of the settings are emulated on the one that was read.

    Raises:
        UsageError: There are no nodes; or an id, or a limit of the settings, is wrong.
    """
    if not nodes:  # without nodes nothing fails, which must not look like a pass
        raise UsageError("there are no nodes to judge", "`check` reads some, or files of --save")
    limits, left_out = limits_of(settings.check, Limits), ignored(settings, ignore)
    seen = [as_ranks_see_it(node, _visible(node, settings)) for node in nodes]
    job = _job(seen, settings, emulated)
    findings = judge(seen, job, limits, ignore=left_out)
    code = exit_code_of(nodes, findings, strict=settings.strict)
    return CheckReport(tuple(nodes), job, findings, code, tuple(left_out))


def _visible(node: Node, settings: Settings) -> str | None:
    """Return CUDA_VISIBLE_DEVICES of the ranks; None: all GPUs."""
    if settings.gpus is None:
        return settings.env.get(_VISIBLE, node.host.environ.get(_VISIBLE))
    return None if settings.gpus.startswith("free:") else settings.gpus


def exit_code_of(nodes: Sequence[Node], findings: Sequence[Finding], *, strict: bool) -> int:
    """Return 3 if a probe could not finish, 1 if something failed, else 0."""
    if any(node.problem or node.nvml.problem_kind in ("hang", "failed") for node in nodes):
        return 3
    worst = Severity.WARN if strict else Severity.FAIL
    return int(any(finding.severity >= worst for finding in findings))


def _job(nodes: Sequence[Node], settings: Settings, emulated: bool) -> Workload:
    healthy = [node for node in nodes if not node.problem]
    gpus = max(map(_gpus_seen, healthy), default=0)
    uses_gpus = _uses_gpus(healthy, settings)
    cores = min((node.host.usable_cores or 1 for node in healthy), default=1)
    share = settings.nodes.max if emulated else 1
    gpus, cores = gpus // share if uses_gpus else 0, max(1, int(cores) // share)
    nproc = _nproc(settings, gpus, cores, share)
    here = len(nodes) == 1 and not settings.hosts
    return Workload(
        nproc_per_node=nproc * share,
        nnodes=len(nodes),
        uses_gpus=uses_gpus,
        master_port=settings.master_port or (None if here else DEFAULT_MASTER_PORT),
    )


def _gpus_seen(node: Node) -> int:
    """Return the number of GPUs or MIG instances that the ranks of a node would see."""
    visible = node.host.environ.get(_VISIBLE)
    return len(node.nvml.gpus) if visible is None else len(node.nvml.visible(visible))


def _uses_gpus(nodes: Sequence[Node], settings: Settings) -> bool:
    """Return whether the job uses GPUs: it asks for them, or they and torch's CUDA build exist."""
    if settings.nproc_per_node == "cpu":
        return False
    return (
        settings.gpus is not None
        or settings.nproc_per_node == "gpu"
        or any(
            node.software.torch_cuda
            and node.nvml.problem_kind not in ("absent", "not_asked")
            and names_gpus(node.host.environ.get(_VISIBLE))
            for node in nodes
        )
    )


def _nproc(settings: Settings, gpus: int, cores: int, share: int) -> int:
    """Return the number of ranks that a launch would choose on the largest of these nodes.

    Args:
        settings: The job.
        gpus: Number of GPUs of a node.
        cores: Number of cores of a node.
        share: Number of nodes that share the GPUs named in the settings.
    """
    named = settings.gpus or ""
    if named.startswith("free:"):
        gpus = int(named.removeprefix("free:")) // share
    elif named:
        gpus = len(named.split(",")) // share
    return max(1, ranks_of_node(settings.nproc_per_node, settings.strategy, gpus, cores))


__all__ = [
    "RULES",
    "CheckReport",
    "Finding",
    "Gpu",
    "Machines",
    "Measured",
    "Node",
    "Severity",
    "Workload",
    "check",
    "in_short",
    "judged",
    "opened",
]
