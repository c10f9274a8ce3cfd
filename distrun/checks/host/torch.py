"""torch must be installed, and be able to use the GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import counted
from distrun.probe.snapshot import Node


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    software = node.software
    if not software.torch:
        if reason := software.missing.get("torch"):
            yield Observation(Severity.SKIP, reason, "")
        else:
            yield Observation(Severity.FAIL, "torch is not installed", "torch")
    elif software.torch_cuda is None and node.nvml.present:
        if reason := software.missing.get("torch_cuda"):
            yield Observation(Severity.SKIP, reason, "")
            return
        gpus = counted(len(node.nvml.present), "GPU")
        yield Observation(
            Severity.FAIL if job.uses_gpus else Severity.WARN,
            f"torch {software.torch} is a CPU build, and this node has {gpus}",
            "a CUDA build",
        )


RULE = Rule(
    id="host.torch",
    title="torch for this machine",
    why="No rank starts without torch, and a CPU build leaves the GPUs unused without a message.",
    fix="`pip install torch --index-url https://download.pytorch.org/whl/cu126` (or the index of"
    " your driver's CUDA), in the environment that the job uses.",
    source="https://pytorch.org/get-started/locally/",
    judge=each_node(_check),
)
