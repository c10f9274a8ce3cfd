"""The NVIDIA driver must be installed and answer."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    nvml = node.nvml
    if nvml.problem_kind == "absent":
        yield Observation(
            Severity.FAIL, "no NVIDIA driver: GPUs are not checked", "a driver that answers"
        )
    elif nvml.problem and nvml.problem_kind != "not_asked":
        yield Observation(Severity.FAIL, nvml.problem, "a driver that answers")


RULE = Rule(
    id="gpu.driver",
    title="NVIDIA driver and its library",
    why="Without a driver that answers, no rank gets a GPU: CUDA fails to initialize, or hangs"
    " as this probe did.",
    fix="Missing: install the driver until `nvidia-smi` works; in a container, `docker run --gpus"
    " all`. Not loaded: `modprobe nvidia`. Library and kernel module of different versions:"
    " reboot, or reload the module. No answer: reboot, and read `dmesg | grep NVRM`.",
    source="NVML return codes 9, 12 and 18; NVIDIA/go-nvml#152",
    judge=each_node(_check),
    quick=True,
    gpus_only=True,
)
