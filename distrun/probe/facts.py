"""The snapshot that a launch plans with."""

from __future__ import annotations

import os
from dataclasses import dataclass

from distrun.probe.host import HostCapacity, free_port, read_host, resolve
from distrun.probe.nvml import not_read, read_gpus
from distrun.probe.snapshot import Gpu, Nvml
from distrun.probe.torch_facts import TorchFacts, read_torch


@dataclass(frozen=True)
class Facts:
    """This machine, its torch, its GPUs, and what the host names mean."""

    host: HostCapacity
    torch: TorchFacts
    gpus: Nvml
    visible_devices: str | None
    """CUDA_VISIBLE_DEVICES of this process."""
    addresses: dict[str, str | None]
    free_port: int
    omp_num_threads: str | None
    """OMP_NUM_THREADS of this process."""


def read_facts(*, want_gpus: bool, hosts: tuple[str, ...] = ()) -> Facts:
    """Take the snapshot.

    Args:
        want_gpus: The job names GPUs; else NVML is not used if this torch could not use a GPU.
        hosts: Names to resolve.
    """
    torch = read_torch()
    if want_gpus or torch.cuda is not None:
        gpus = read_gpus(quick=True)
    else:
        gpus = not_read("this torch is a CPU build", "not_asked")
    return Facts(
        host=read_host(),
        torch=torch,
        gpus=gpus,
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        addresses={name: resolve(name) for name in hosts},
        free_port=free_port(),
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
    )


__all__ = ["Facts", "Gpu", "read_facts"]
