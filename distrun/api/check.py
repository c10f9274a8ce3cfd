"""Check machines before a job is launched on them: read them, judge them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from distrun.api.nodes import Nodes, open_nodes
from distrun.api.reach import DEFAULT_MASTER_PORT
from distrun.api.recorded import read_recorded
from distrun.api.rules import ignored
from distrun.api.visible_gpus import as_ranks_see_it, names_gpus
from distrun.checks.judge import judge
from distrun.checks.limits import Limits
from distrun.checks.registry import RULES
from distrun.checks.rule import Finding, Job, Severity
from distrun.checks.skips import in_short
from distrun.errors import UsageError
from distrun.plan.devices import ranks_of_node
from distrun.probe.snapshot import Gpu, Measured, Node
from distrun.spec.check import limits_of
from distrun.spec.job import Settings

_VISIBLE = "CUDA_VISIBLE_DEVICES"


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
    ignored: tuple[str, ...] = ()
    """Ids of rules that were left out, or prefixes such as `gpu.*`."""


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
        MachineError: ssh or Slurm is not here, or Slurm gives no nodes.
    """
    settings = settings or Settings()
    if recorded:
        return judged(read_recorded(recorded), settings, ignore)
    with closing(open_nodes(settings, on=on, python=python)) as there:
        nodes = there.whole_picture(settings.master_port)
    return judged(nodes, settings, ignore, emulated=emulates(settings, on))


def emulates(settings: Settings, on: str) -> bool:
    """Say whether the nodes of the settings are all to be on this machine."""
    return on in ("", "local") and not settings.hosts and settings.nodes.max > 1


def judged(
    nodes: Sequence[Node],
    settings: Settings,
    ignore: Sequence[str] = (),
    *,
    emulated: bool = False,
) -> CheckReport:
    """Judge nodes that were read; of their GPUs, those that the job would see.

    Args:
        nodes: The nodes.
        settings: The job; without `gpus`, CUDA_VISIBLE_DEVICES of each node counts.
        ignore: Ids of rules to leave out, beside those of the settings.
        emulated: The nodes of the settings are all on the one that was read.

    Raises:
        UsageError: There are no nodes; or an id, or a limit of the settings, is wrong.
    """
    if not nodes:  # nothing can fail there, which must not look like health
        raise UsageError("there are no nodes to judge", "`check` reads some, or files of --save")
    limits, left_out = limits_of(settings.check, Limits), ignored(settings, ignore)
    seen = [as_ranks_see_it(node, _visible(node, settings)) for node in nodes]
    job = _job(seen, settings, emulated)
    findings = judge(seen, job, limits, ignore=left_out)
    code = exit_code_of(nodes, findings, strict=settings.strict)
    return CheckReport(tuple(nodes), job, findings, code, tuple(left_out))


def _visible(node: Node, settings: Settings) -> str | None:
    """Return CUDA_VISIBLE_DEVICES as the ranks would have it; None is all there are."""
    if settings.gpus is None:
        return settings.env.get(_VISIBLE, node.host.environ.get(_VISIBLE))
    return None if settings.gpus.startswith("free:") else settings.gpus


def exit_code_of(nodes: Sequence[Node], findings: Sequence[Finding], *, strict: bool) -> int:
    """Return 3 if a probe could not finish, 1 if something failed, else 0."""
    if any(node.problem or node.nvml.problem_kind in ("hang", "failed") for node in nodes):
        return 3
    worst = Severity.WARN if strict else Severity.FAIL
    return int(any(finding.severity >= worst for finding in findings))


def _job(nodes: Sequence[Node], settings: Settings, emulated: bool) -> Job:
    healthy = [node for node in nodes if not node.problem]
    gpus = max(map(_gpus_seen, healthy), default=0)
    uses_gpus = _uses_gpus(healthy, settings)
    cores = min((node.host.usable_cores or 1 for node in healthy), default=1)
    share = settings.nodes.max if emulated else 1
    gpus, cores = gpus // share if uses_gpus else 0, max(1, int(cores) // share)
    nproc = _nproc(settings, gpus, cores, share)
    here = len(nodes) == 1 and not settings.hosts
    return Job(
        nproc_per_node=nproc * share,
        nnodes=len(nodes),
        uses_gpus=uses_gpus,
        master_port=settings.master_port or (None if here else DEFAULT_MASTER_PORT),
    )


def _gpus_seen(node: Node) -> int:
    """Return how many GPUs, or parts of them, the ranks of a node would see."""
    visible = node.host.environ.get(_VISIBLE)
    return len(node.nvml.gpus) if visible is None else len(node.nvml.visible(visible))


def _uses_gpus(nodes: Sequence[Node], settings: Settings) -> bool:
    """Say whether the job is to run on GPUs: asked for, or there and torch is built for them."""
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
    """Return the ranks of a node, as a launch would choose them on the best of these nodes.

    Args:
        settings: The job.
        gpus: Of a node.
        cores: Of a node.
        share: So many nodes share the GPUs that the settings name.
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
    "Job",
    "Measured",
    "Node",
    "Nodes",
    "Severity",
    "check",
    "in_short",
    "judged",
    "open_nodes",
]
