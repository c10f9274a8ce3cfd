"""The driver must be new enough for torch's CUDA version."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    wanted = _version(node.software.torch_cuda)
    if node.nvml.problem or wanted is None:
        return  # reported by gpu.driver and host.torch
    if node.nvml.missing.get("cuda_driver_version") == "LibraryNotFound":
        yield Observation(Severity.FAIL, "libcuda.so.1 is missing", "the driver's libcuda.so.1")
        return
    driver = _version(node.nvml.driver_version)
    if driver is None:
        yield from unread(node.nvml, "driver_version")
        return
    least = getattr(limits, f"driver_for_cuda_{wanted[0]}", 0)
    usual = getattr(Limits, f"driver_for_cuda_{wanted[0]}", 0)
    runs = node.nvml.cuda_driver_version
    speaks = f"driver {node.nvml.driver_version}"
    if runs is not None:
        speaks += f" runs CUDA {runs // 1000}.{runs % 1000 // 10}"
    too_old = driver[0] < least
    if runs is not None and least == usual:
        # With the cuda-compat package libcuda is newer than the driver, so its CUDA version counts.
        # A limit set by the user always applies.
        too_old = runs // 1000 < wanted[0]
    if too_old:
        need = f"driver {least} or later, for" if least else "a driver for"
        yield Observation(Severity.FAIL, speaks, f"{need} torch's CUDA {_dotted(wanted)}")
    elif runs is None:
        yield from unread(node.nvml, "cuda_driver_version")
    elif (runs // 1000, runs % 1000 // 10) < wanted:
        yield Observation(Severity.WARN, speaks, f"CUDA {_dotted(wanted)}, as torch was built for")


def _version(text: str | None) -> tuple[int, int] | None:
    major, _, rest = (text or "").partition(".")
    minor = rest.partition(".")[0]
    if not (major.isascii() and major.isdigit()):
        return None
    return int(major), int(minor) if minor.isascii() and minor.isdigit() else 0


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


RULE = Rule(
    id="gpu.cuda",
    title="Driver against torch's CUDA",
    why="With a driver for an older CUDA major version this torch does not start. A driver"
    " that is older within the major version lacks newer functions and cannot compile PTX of"
    " newer toolkits. Without libcuda.so.1 no rank gets a GPU, though `nvidia-smi` shows all"
    " of them.",
    fix="Upgrade the driver, or install the torch build for the driver's CUDA: pip install torch"
    " --index-url https://download.pytorch.org/whl/cu126 (cu118, cu128, cu130, …)."
    " No libcuda.so.1: set NVIDIA_DRIVER_CAPABILITIES=compute,utility for the container.",
    source="https://docs.nvidia.com/deploy/cuda-compatibility/",
    judge=each_node(_check),
    quick=True,
    gpus_only=True,
)
