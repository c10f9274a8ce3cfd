"""The compute mode must let the ranks open contexts."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu, GpuProcess

_EXCLUSIVE_THREAD, _PROHIBITED, _EXCLUSIVE_PROCESS = 1, 2, 3


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    if gpu.compute_mode is None:
        yield from unread(gpu, "compute_mode")
    elif gpu.compute_mode == _PROHIBITED:
        yield Observation(Severity.FAIL, "compute mode prohibited", "default")
    elif gpu.compute_mode in (_EXCLUSIVE_THREAD, _EXCLUSIVE_PROCESS):
        yield _exclusive(gpu.processes or ())


def _exclusive(there: tuple[GpuProcess, ...]) -> Observation:
    if any(process.is_mps_server for process in there):  # as NVIDIA recommends
        return Observation(Severity.INFO, "compute mode exclusive, through MPS", "default")
    if not there:
        return Observation(Severity.WARN, "compute mode exclusive", "default")
    first = there[0]
    seen = bool(first.command)  # else it may be the MPS server, outside this container
    return Observation(
        Severity.FAIL if seen else Severity.WARN,
        f"compute mode exclusive, and pid {first.pid} uses it"
        + ("" if seen else " (not visible from here)"),
        "default mode, or no process on it",
    )


RULE = Rule(
    id="gpu.compute_mode",
    title="Compute mode",
    why="In prohibited mode no process may use the GPU. In exclusive mode one may: a rank that uses"
    ' GPU 0 before it sets its own device then blocks rank 0 with "all CUDA-capable devices are'
    ' busy or unavailable".',
    fix="`nvidia-smi -i N -c DEFAULT` as root; or call torch.cuda.set_device(LOCAL_RANK)"
    " before any other CUDA call. With MPS, exclusive mode is right.",
    source="karpathy/nanoGPT#116, huggingface/pytorch-image-models#1033;"
    " https://docs.nvidia.com/deploy/mps/",
    judge=each_gpu(_check),
    quick=True,
    gpus_only=True,
)
