"""Debug settings that slow a job down or break it."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Host

_ON = ("1", "true", "yes", "on", "y")
_GPU_TRAPS = {
    "CUDA_LAUNCH_BLOCKING": (_ON, "waits for every kernel"),
    "NCCL_P2P_DISABLE": (_ON, "no NVLink and no PCIe P2P"),
    "NCCL_SHM_DISABLE": (_ON, "ranks of a node use the network"),
    "NCCL_IB_DISABLE": (_ON, "no RDMA"),
    "NCCL_NVLS_ENABLE": (("0",), "no NVLink SHARP"),
    "NCCL_DEBUG": (("trace",), "a line for every call"),
}
_TRAPS = {
    "TORCH_DISTRIBUTED_DEBUG": (("detail",), "slow, and DDP on gloo crashes with it"),
}
"""Variable -> its bad values, in lower case, and what they do."""


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    traps = _TRAPS | _GPU_TRAPS if job.uses_gpus else _TRAPS
    for variable, (bad, effect) in traps.items():
        value = host.environ.get(variable, "")
        if variable == "NCCL_IB_DISABLE" and not host.infiniband:
            continue  # there is nothing to disable
        if value.lower() in bad:
            yield Observation(Severity.WARN, f"{variable}={value}: {effect}", "unset")


RULE = Rule(
    id="host.environ",
    title="Suspicious NCCL_*, CUDA_* and TORCH_* settings",
    why="Set once for debugging and left in a profile or an image, they slow down every later"
    " job without a message.",
    fix="`unset NAME` in the shell, and look for it in ~/.bashrc, /etc/nccl.conf and the image.",
    source="stas00/ml-engineering, network and debug",
    judge=each_host(_check),
    quick=True,
)
