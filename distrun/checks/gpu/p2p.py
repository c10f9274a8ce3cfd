"""GPUs without peer-to-peer access to one another's memory."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import some
from distrun.probe.snapshot import GpuPair, Node

_STATUS = {
    1: "chipset not supported",
    2: "GPU not supported",
    3: "not across these PCIe roots",
    4: "disabled by a driver setting",
    5: "not supported",
    6: "unknown",
}


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    without: dict[int, list[GpuPair]] = {}
    for pair in node.nvml.pairs:
        worst = pair.p2p_read or pair.p2p_write
        if worst:
            without.setdefault(worst, []).append(pair)
        for field in ("p2p_read", "p2p_write"):
            if getattr(pair, field) is None:
                reason = f"{pair.missing.get(field) or 'not read'} ({field})"
                yield Observation(Severity.SKIP, reason, "", device=f"GPUs {pair.a} and {pair.b}")
                break
    geforce = all("GeForce" in gpu.name for gpu in node.nvml.present)
    for status, pairs in without.items():
        named = some([f"{pair.a}-{pair.b}" for pair in pairs], 4)
        why = _STATUS.get(status, f"status {status}")
        yield Observation(
            # A single rank uses no other GPU of its node, and GeForce does not support it.
            Severity.WARN if job.nproc_per_node > 1 and not geforce else Severity.INFO,
            f"{len(pairs)} of {len(node.nvml.pairs)} pairs without P2P ({why}): {named}",
            "P2P reads and writes between all GPUs",
        )


RULE = Rule(
    id="gpu.p2p",
    title="Peer-to-peer access",
    why="Without it NCCL copies through the host's memory (/dev/shm), which is slower and uses"
    " the CPUs.",
    fix="GeForce cards do not support it: nothing to fix. Others: disable ACS in the BIOS,"
    " boot with iommu=pt, and remove NVreg_RegistryDwords that disable it; `nvidia-smi topo"
    " -p2p r` shows it.",
    source="NCCL asks the same two of NVML; NVIDIA/nccl troubleshooting, PCI access control",
    judge=each_node(_check),
    gpus_only=True,
)
