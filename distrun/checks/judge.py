"""Runs the rules over snapshots, and returns their findings, worst first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from distrun.checks.limits import Limits
from distrun.checks.nodes import unreachable
from distrun.checks.rule import Finding, Observation, Rule, Severity, Workload, matches
from distrun.checks.skips import merge_skips
from distrun.probe.snapshot import Node


def judge(
    nodes: Sequence[Node],
    job: Workload,
    limits: Limits,
    *,
    ignore: Sequence[str] = (),
    quick: bool = False,
) -> tuple[Finding, ...]:
    """Judge nodes for a job.

    Args:
        nodes: What the probes read. A node whose probe did not finish gives one finding, and other
            rules ignore it.
        job: The job that they will run; if it uses no GPUs, findings about GPUs are INFO at most.
        limits: The thresholds.
        ignore: Ids of rules to leave out, or prefixes of ids: `gpu.*`.
        quick: Only the rules that `distrun launch` runs; of several nodes, all that compare them.

    Returns:
        The worst first; equal severities in the registry's order. One SKIP per rule and node.
    """
    findings = [
        _finding(rule, seen)
        for rule in _rules(quick, several=len(nodes) > 1)
        if not any(matches(pattern, rule.id) for pattern in ignore)
        for seen in _observations(rule, nodes, job, limits)
    ]
    return tuple(sorted(findings, key=lambda finding: -finding.severity))


def _rules(quick: bool, *, several: bool) -> tuple[Rule, ...]:
    """Return the rules; the import of all of them is too slow for a launch on one machine."""
    if quick:
        from distrun.checks.quick import QUICK

        if several:
            from distrun.checks.across import ACROSS

            return (*QUICK, *(rule for rule in ACROSS if rule not in QUICK))
        return QUICK
    from distrun.checks.registry import RULES

    return RULES


def _observations(
    rule: Rule, nodes: Sequence[Node], job: Workload, limits: Limits
) -> Iterator[Observation]:
    if rule is not unreachable.RULE:
        nodes = [node for node in nodes if not node.problem]
    for seen in merge_skips(rule.judge(nodes, job, limits)):
        if rule.gpus_only and not job.uses_gpus:
            yield replace(seen, severity=min(seen.severity, Severity.INFO))
        else:
            yield seen


def _finding(rule: Rule, seen: Observation) -> Finding:
    return Finding(
        id=rule.id,
        severity=seen.severity,
        node=seen.node,
        device=seen.device,
        observed=seen.observed,
        expected=seen.expected,
        why=rule.why,
        fix=rule.fix,
        source=rule.source,
    )
