"""Before a launch: the quick rules over this machine refuse it, or leave notes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from distrun.api.rules import ignored
from distrun.checks.judge import judge
from distrun.checks.limits import Limits
from distrun.checks.rule import Finding, Severity
from distrun.checks.rule import Job as Expected
from distrun.errors import MachineError
from distrun.plan.model import LaunchPlan
from distrun.probe.facts import Facts
from distrun.probe.node import read_node
from distrun.probe.snapshot import Node, Nvml
from distrun.spec.check import limits_of
from distrun.spec.job import Job

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def checked(job: Job, plan: LaunchPlan, facts: Facts) -> LaunchPlan:
    """Return the plan, with the warnings among its notes.

    Raises:
        MachineError: Something failed; or, if the job is strict, is worth a warning.
        UsageError: The table `[tool.distrun.check]` is wrong.
    """
    limits, ignore = limits_of(job.check, Limits), ignored(job)
    node = _as_the_ranks_see_it(
        read_node(runs_dir=job.runs_dir, want_gpus=False, quick=True), plan, facts
    )
    expected = _expected(plan, node)
    findings = judge([node], expected, limits, ignore=ignore, quick=True)
    fatal = Severity.WARN if job.strict else Severity.FAIL
    refusing = [finding for finding in findings if finding.severity >= fatal]
    if refusing:
        raise _refusal(refusing)
    return replace(plan, notes=(*plan.notes, *_notes(findings)))


def _as_the_ranks_see_it(node: Node, plan: LaunchPlan, facts: Facts) -> Node:
    """Return the node with the GPUs that the plan hands out, as NVML told of them before."""
    handed = [n.environ[_VISIBLE] for n in plan.nodes if _VISIBLE in n.environ]
    visible = ",".join(handed) if handed else facts.visible_devices
    environ = {**node.host.environ, **plan.nodes[0].environ}
    environ.pop(_VISIBLE, None)
    if visible is not None:
        environ[_VISIBLE] = visible
    kept = {name: value for name, value in environ.items() if name not in plan.secrets}
    return replace(
        node,
        nvml=only(facts.gpus, visible),
        host=replace(node.host, environ=kept),
    )


def only(nvml: Nvml, visible: str | None) -> Nvml:
    """Return what NVML told, without the GPUs that CUDA_VISIBLE_DEVICES leaves out."""
    if visible is None:
        return nvml
    names = [name.strip() for name in visible.split(",")]
    gpus = tuple(
        gpu
        for gpu in nvml.gpus
        if str(gpu.index) in names
        or any(gpu.uuid and gpu.uuid.startswith(name) for name in names if name.startswith("GPU-"))
    )
    kept = {gpu.index for gpu in gpus}
    pairs = tuple(pair for pair in nvml.pairs if {pair.a, pair.b} <= kept)
    return replace(nvml, gpus=gpus, pairs=pairs)


def _expected(plan: LaunchPlan, node: Node) -> Expected:
    """Return what the rules judge for: all ranks of the emulated nodes, which are here."""
    ranks = plan.world_size
    return Expected(
        nproc_per_node=ranks,
        nnodes=1,
        uses_gpus=0 < ranks <= len(node.nvml.gpus),  # else its ranks are on the CPU, as noted
        master_port=plan.master_port,
    )


def _refusal(found: list[Finding]) -> MachineError:
    more = f", and {len(found) - 1} more: `distrun check` shows them" if found[1:] else ""
    return MachineError(
        f"this machine is not fit for the job: {_sentence(found[0])} ({found[0].id}){more}",
        f"{found[0].fix}; --no-check leaves the check out",
    )


def _notes(findings: tuple[Finding, ...]) -> Iterator[str]:
    for finding in findings:
        if finding.severity == Severity.WARN:
            yield f"warning: {_sentence(finding)} ({finding.id})"


def _sentence(finding: Finding) -> str:
    place = f"{finding.device}: " if finding.device else ""
    expected = f", expected {finding.expected}" if finding.expected else ""
    return f"{place}{finding.observed}{expected}"
