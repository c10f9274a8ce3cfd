"""All nodes must run the same torch."""

from __future__ import annotations

from distrun.checks.nodes.compare import Fact, compared
from distrun.checks.rule import Rule, Severity
from distrun.probe.snapshot import Node


def _torch(node: Node) -> str | None:
    software = node.software
    if not software.torch:
        return None
    cuda = software.torch_cuda
    # Wheels of PyPI do not carry their CUDA in the version.
    return software.torch + (f" (CUDA {cuda})" if cuda and "+" not in software.torch else "")


RULE = Rule(
    id="nodes.torch",
    title="torch, over nodes",
    why="The wire formats of c10d and of torchrun's rendezvous are not promised between versions:"
    " ranks hang at the first collective, or compute different things.",
    fix="Install the same version on every node, from one lock file or one image.",
    source="distrun's own rule",
    judge=compared(
        Fact(
            _torch,
            noun="torch",
            missing=lambda node: node.software.missing.get("torch") or "torch is not installed",
        ),
        Severity.FAIL,
    ),
)
