"""GPUs that are excluded by a driver option."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import counted
from distrun.probe.snapshot import Node


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    excluded = node.nvml.excluded_gpus
    if node.nvml.problem:
        return
    if excluded is None:
        yield from unread(node.nvml, "excluded_gpus")
    elif excluded > 0:
        yield Observation(Severity.WARN, f"{counted(excluded, 'GPU')} excluded", "none")


RULE = Rule(
    id="gpu.excluded",
    title="GPUs excluded from use",
    why="A GPU was excluded by a module option, most often because it was broken: this node"
    " has fewer GPUs than others.",
    fix="Look for NVreg_ExcludedGpus in /etc/modprobe.d; have the card replaced, then remove"
    " the option and reload the driver.",
    source="nvmlGetExcludedDeviceCount",
    judge=each_node(_check),
    gpus_only=True,
)
