"""Finds rules that had nothing to judge: they must not count as passed."""

from __future__ import annotations

from collections.abc import Sequence

from distrun.api.check import CheckReport, Node
from distrun.checks.rule import Rule, matches

_JUDGES_ONE = "nodes.unreachable"
_NEEDS_NO_GPU = "gpu.driver"


def why_not_judged(rule: Rule, report: CheckReport) -> str:
    """Return why a rule had nothing to judge, as a sentence; "" if it had."""
    answered = [node for node in report.nodes if not node.problem]
    room = rule.id.partition(".")[0]
    if any(matches(pattern, rule.id) for pattern in report.ignored):
        return "ignored"
    if rule.id == _JUDGES_ONE:
        return ""
    if not answered:
        return "no node answered"
    if room == "deep":
        return _why_not_measured(rule, answered)
    if room == "nodes" and len(answered) < 2:
        return "there is only one node"
    if room == "gpu" and not any(node.nvml.gpus for node in answered):
        drivers = any(not node.nvml.problem for node in answered)
        return "" if drivers and rule.id == _NEEDS_NO_GPU else "no GPU was found"
    if rule.id.startswith("nodes.gpu.") and sum(bool(n.nvml.gpus) for n in answered) < 2:
        return "there are fewer than two nodes with GPUs"
    return ""


def _why_not_measured(rule: Rule, nodes: Sequence[Node]) -> str:
    found = [node.measured for node in nodes if node.measured]
    ranks = [rank for measured in found for rank in measured.ranks]
    if not found:
        return "not run: --deep measures it"
    if rule.id == "deep.job":
        return ""
    if rule.gpus_only:
        ranks = [rank for rank in ranks if rank.copy_bandwidth is not None]
    return "" if ranks else "no rank measured it"


def unread_nodes(rule: Rule, report: CheckReport) -> str:
    """Return the names of nodes that a rule should judge and that did not answer."""
    if rule.id == _JUDGES_ONE:
        return ""
    return ", ".join(node.name for node in report.nodes if node.problem)
