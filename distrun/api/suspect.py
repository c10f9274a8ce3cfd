"""`…/suspect.py ORDER`: checks one node, and prints what is wrong with it as a line of JSON.

The supervisor starts it for a node whose place a spare has taken. It reads the node as `distrun
check` does, and judges it by the same rules.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))

from distrun.checks.judge import judge
from distrun.checks.limits import Limits
from distrun.checks.rule import Finding, Severity, Workload
from distrun.nodes.machines import OtherMachines
from distrun.probe.node import read_node
from distrun.probe.snapshot import Node

_LIMIT_S = 60


def main() -> None:
    """Check it."""
    signal.alarm(_LIMIT_S)
    order = json.loads(sys.argv[1])
    print(json.dumps(checked(_read(order), order["nproc_per_node"])))


def _read(order: Mapping[str, Any]) -> Node:
    if not order["probe"]:
        return read_node(order["name"])
    machines = OtherMachines({order["name"]: order["probe"]}, bootstrap=order["bootstrap"])
    try:
        (node,) = machines.read()
        return node
    finally:
        machines.close()


def checked(node: Node, nproc_per_node: int) -> dict[str, list[str]]:
    """Return what is wrong with a node, and what is not as it should be, a sentence each."""
    uses_gpus = bool(node.nvml.gpus)
    job = Workload(nproc_per_node=nproc_per_node, uses_gpus=uses_gpus)
    findings = judge([node], job, Limits())
    return {
        name: [_told(finding) for finding in findings if finding.severity == severity]
        for name, severity in (("failed", Severity.FAIL), ("warned", Severity.WARN))
    }


def _told(finding: Finding) -> str:
    where = f"{finding.device}: " if finding.device else ""
    return f"{finding.id}: {where}{finding.observed}"


if __name__ == "__main__":
    main()
