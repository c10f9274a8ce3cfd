"""Runs the quick rules on this machine before a launch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from distrun.api.rules import ignored
from distrun.api.visible_gpus import as_ranks_see_it, names_gpus
from distrun.checks.judge import judge
from distrun.checks.limits import Limits
from distrun.checks.rule import Finding, Severity, Workload
from distrun.errors import MachineError
from distrun.plan.model import LaunchPlan
from distrun.probe.facts import Facts
from distrun.probe.node import read_node
from distrun.probe.snapshot import Node
from distrun.spec.check import limits_of
from distrun.spec.job import Job

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_BROKEN = ("mismatch", "hang", "failed")


def checked(job: Job, plan: LaunchPlan, facts: Facts) -> LaunchPlan:
    """Return the plan, with the warnings among its notes.

    Raises:
        MachineError: A rule failed or, if the job is strict, gave a warning.
        UsageError: The table `[tool.distrun.check]` is wrong.
    """
    limits, ignore = limits_of(job.check, Limits), ignored(job)
    node = read_node(runs_dir=job.runs_dir, want_gpus=False, quick=True)
    node = _of_the_ranks(node, plan, facts)  # the node already contains NVML's answers
    findings = judge([node], _expected(job, plan, node, facts), limits, ignore=ignore, quick=True)
    fatal = Severity.WARN if job.strict else Severity.FAIL
    refusing = [finding for finding in findings if finding.severity >= fatal]
    if refusing:
        raise _refusal(refusing)
    return replace(plan, notes=(*plan.notes, *_notes(findings)))


def _of_the_ranks(node: Node, plan: LaunchPlan, facts: Facts) -> Node:
    """Return the node with the GPUs and the variables that the ranks get from the plan."""
    environ = {**node.host.environ, **plan.nodes[0].environ}
    known = {name: value for name, value in environ.items() if name not in plan.secrets}
    node = replace(node, nvml=facts.gpus, host=replace(node.host, environ=known))
    handed = [n.environ[_VISIBLE] for n in plan.nodes if _VISIBLE in n.environ]
    # Emulated nodes divide the GPUs; a variable set by the job is the same on each.
    visible = ",".join(dict.fromkeys(handed)) if handed else facts.visible_devices
    return as_ranks_see_it(node, visible)


def _expected(job: Job, plan: LaunchPlan, node: Node, facts: Facts) -> Workload:
    """Return the workload for the rules: all ranks of all emulated nodes run here.

    If there are more ranks than GPUs they use the CPU, with a note in the plan. But with a broken
    driver the job would use the CPU without a message, so GPUs are then expected.
    """
    ranks, nvml = plan.world_size, node.nvml
    wants_gpus = job.nproc_per_node != "cpu"
    broken = nvml.problem_kind in _BROKEN and wants_gpus
    visible = node.host.environ.get(_VISIBLE)
    # With names of GPUs that CUDA does not accept the job would use the CPU too.
    named = facts.torch.cuda is not None and not nvml.problem and names_gpus(visible)
    misnamed = visible is not None and named and wants_gpus and not nvml.visible(visible)
    return Workload(
        nproc_per_node=ranks,
        nnodes=1,
        uses_gpus=broken or misnamed or ranks <= len(nvml.gpus),
        master_port=plan.master_port,
    )


def _refusal(found: list[Finding]) -> MachineError:
    more = f", and {len(found) - 1} more: see `distrun check`" if found[1:] else ""
    return MachineError(
        f"this machine is not fit for the job: {_sentence(found[0])} ({found[0].id}){more}",
        f"{found[0].fix} --no-check skips the check.",
    )


def _notes(findings: tuple[Finding, ...]) -> Iterator[str]:
    for finding in findings:
        if finding.severity == Severity.WARN:
            yield f"warning: {_sentence(finding)} ({finding.id})"


def _sentence(finding: Finding) -> str:
    place = f"{finding.device}: " if finding.device else ""
    expected = f", expected {finding.expected}" if finding.expected else ""
    return f"{place}{finding.observed}{expected}"
