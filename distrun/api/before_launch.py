"""Runs the quick rules before a launch, on this machine or on all machines of the job."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from distrun.api.rules import ignored
from distrun.api.visible_gpus import as_ranks_see_it, names_gpus
from distrun.checks.judge import judge
from distrun.checks.limits import Limits
from distrun.checks.rule import Finding, Severity, Workload
from distrun.errors import MachineError
from distrun.listen import is_loopback
from distrun.plan.model import LaunchPlan, NodePlan
from distrun.plan.site import Machine, Site
from distrun.probe.node import THIS_MACHINE
from distrun.probe.snapshot import Node
from distrun.spec.check import limits_of
from distrun.spec.job import Job

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_BROKEN = ("mismatch", "hang", "failed")


def checked(job: Job, plan: LaunchPlan, site: Site) -> LaunchPlan:
    """Return the plan, with the warnings among its notes.

    Raises:
        MachineError: A rule failed or, if the job is strict, gave a warning.
        UsageError: The table `[tool.distrun.check]` is wrong.
    """
    limits, ignore = limits_of(job.check, Limits), ignored(job)
    if site.emulated:
        nodes = [_of_the_ranks(site.head, (*plan.nodes, *plan.spares), plan.secrets)]
    else:
        each = list(zip(site.machines, (*plan.nodes, *plan.spares), strict=True))
        if plan.own_node is not None:  # the others judge themselves
            each = [each[plan.own_node]]
        nodes = [_of_the_ranks(machine, [node], plan.secrets) for machine, node in each]
    workload = _expected(job, plan, nodes)
    findings = judge(nodes, workload, limits, ignore=ignore, quick=True)
    fatal = Severity.WARN if job.strict else Severity.FAIL
    refusing = [finding for finding in findings if finding.severity >= fatal]
    if refusing:
        raise _refusal(refusing)
    return replace(plan, notes=(*plan.notes, *_notes(findings)))


def _of_the_ranks(machine: Machine, own: Sequence[NodePlan], secrets: Collection[str]) -> Node:
    """Return a machine's snapshot with the GPUs and the variables that its ranks get.

    Args:
        machine: The machine.
        own: The nodes on it.
        secrets: Names of variables that no finding may show.
    """
    node = machine.node
    environ = {**node.host.environ, **own[0].environ}
    known = {name: value for name, value in environ.items() if name not in secrets}
    node = replace(node, host=replace(node.host, environ=known))
    handed = [n.environ[_VISIBLE] for n in own if _VISIBLE in n.environ]
    # Emulated nodes divide the GPUs; a variable set by the job is the same on each.
    visible = ",".join(dict.fromkeys(handed)) if handed else machine.visible_devices
    return as_ranks_see_it(node, visible)


def _expected(job: Job, plan: LaunchPlan, nodes: Sequence[Node]) -> Workload:
    """Return the workload for the rules: all ranks of all emulated nodes run on one machine.

    If there are more ranks than GPUs they use the CPU, with a note in the plan. But with a broken
    driver the job would use the CPU without a message, so GPUs are then expected.
    """
    ranks = plan.world_size if plan.local else plan.nproc_per_node
    wants_gpus = job.nproc_per_node != "cpu"
    return Workload(
        nproc_per_node=ranks,
        nnodes=1 if plan.local or is_loopback(plan.nodes[0].address) else plan.nnodes,
        uses_gpus=any(_is_broken(node) and wants_gpus for node in nodes)
        or all(ranks <= len(node.nvml.gpus) for node in nodes),
        master_port=plan.master_port,
    )


def _is_broken(node: Node) -> bool:
    """Return whether the driver is broken, or GPUs are named that CUDA does not accept."""
    nvml, visible = node.nvml, node.host.environ.get(_VISIBLE)
    named = node.software.torch_cuda is not None and not nvml.problem and names_gpus(visible)
    misnamed = visible is not None and named and not nvml.visible(visible)
    return nvml.problem_kind in _BROKEN or misnamed


def _refusal(found: list[Finding]) -> MachineError:
    more = f", and {len(found) - 1} more: see `distrun check`" if found[1:] else ""
    where = found[0].node
    machine = "this machine" if where in ("", THIS_MACHINE) else where
    return MachineError(
        f"{machine} cannot run the job: {_sentence(found[0])} ({found[0].id}){more}",
        f"{found[0].fix} --no-check skips the check.",
    )


def _notes(findings: tuple[Finding, ...]) -> Iterator[str]:
    """Yield a line for each warning; nodes with the same one share it."""
    nodes: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        if finding.severity == Severity.WARN:
            named = [] if finding.node in ("", THIS_MACHINE) else [finding.node]
            nodes.setdefault((_sentence(finding), finding.id), []).extend(named)
    for (sentence, rule), names in nodes.items():
        where = f"{', '.join(names)}: " if names else ""
        yield f"warning: {where}{sentence} ({rule})"


def _sentence(finding: Finding) -> str:
    place = f"{finding.device}: " if finding.device else ""
    expected = f", expected {finding.expected}" if finding.expected else ""
    return f"{place}{finding.observed}{expected}"
