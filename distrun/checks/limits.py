"""Every threshold of every rule, in one table. The config's `[tool.distrun.check]` overrides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The thresholds, by the rule that reads them. [own] marks those of distrun alone."""

    # driver
    driver_for_cuda_11: int = 450
    """Oldest driver that runs CUDA 11 (docs.nvidia.com/deploy/cuda-compatibility)."""
    driver_for_cuda_12: int = 525
    """Oldest driver that runs CUDA 12 (same table)."""
    driver_for_cuda_13: int = 580
    """Oldest driver that runs CUDA 13 (same table)."""

    # memory of the GPU
    remapped_rows_max: int = 512
    """Rows that a GPU can remap in all; above it is to be replaced (NVIDIA's RMA policy)."""
    retired_pages_warn: int = 10
    """From here on (facebookresearch/gcm's default; a GPU can retire 64)."""
    gpu_used_warn_nbytes: int = 1 << 30
    """Memory in use before the job starts, by nobody that can be seen."""
    gpu_used_warn_percent: float = 2.0
    """The same as a share of the memory; the lesser of both counts."""
    gpu_process_ignored_nbytes: int = 15_000_000
    """Processes that hold no more than this are no company (facebookresearch/gcm: 15 MB)."""
    bar1_warn_nbytes: int = 256 << 20
    """At or below, RDMA cannot map enough of the GPU (Mellanox/nv_peer_memory#101)."""

    # heat, power, links
    temperature_margin_c: int = 5
    """This near to where the GPU slows itself down (leptonai/gpud's example)."""
    pcie_busy_percent: int = 50
    """Utilisation from which on the PCIe generation means something: idle GPUs drop it. [own]"""
    nvlink_errors_warn: int = 15
    """Errors of one counter of one link (NVIDIA/nvidia-resiliency-ext flags above 15)."""

    # Xid
    xids_fatal: tuple[int, ...] = (48, 62, 63, 64, 74, 79, 92, 95, 119, 120)
    """Those that a GPU does not get over by itself (Azure/azurehpc-health-checks; 95 [own])."""

    # the host
    shm_fail_nbytes: int = 64 << 20
    """Docker's default for /dev/shm; NCCL takes some 10 MB a rank (NVIDIA/nccl#342)."""
    shm_warn_nbytes: int = 1 << 30
    """Room for a node full of ranks and their DataLoader workers (NVIDIA/nccl#290)."""
    nofile_per_rank: int = 2
    """Descriptors for each rank of the world: gloo connects all with all. [own]"""
    nofile_base: int = 512
    """Descriptors that a rank needs beside those. [own]"""
    nofile_warn: int = 65_536
    """At least this many on a job of several nodes. [own]"""
    nproc_per_rank: int = 256
    """Processes and threads of one rank, DataLoader workers included. [own]"""
    nproc_least_per_rank: int = 8
    """A rank alone: its process, torch's threads and gloo's; fewer, and it cannot start. [own]"""
    nproc_base: int = 512
    """Processes and threads that the user's session needs beside the ranks. [own]"""
    cores_per_rank_warn: float = 2.0
    """Fewer cores a rank, and data loading starves a GPU. [own]"""
    memory_per_rank_fail_nbytes: int = 128 << 20
    """A rank that shares torch with its parent still takes this much for itself. [own]"""
    memory_per_rank_warn_nbytes: int = 256 << 20
    """What a rank takes that shares nothing: torch, gloo and a tiny model. [own]"""
    runs_dir_free_percent: float = 10.0
    """Free space of the file system of the run directory. [own]"""
    nic_speed_warn_mbps: int = 10_000
    """At 1 Gb/s the float32 gradients of 100 M parameters take 3 s and more a step. [own]"""
    roce_mtu: int = 4_200
    """What RoCE's own packets of 4096 bytes need, headers included (NVIDIA/nccl#1524)."""
    link_downed_warn: int = 5
    """How often an InfiniBand link has gone down since its counters began. [own]"""

    # several nodes
    clock_offset_s: float = 0.1
    """Beyond, the order of events in merged logs is wrong, and TLS may fail. [own]"""

    # --deep
    matmul_share_warn: float = 0.8
    """Of the median of all ranks: below, a device holds the others up. [own]"""
    copy_share_warn: float = 0.8
    """Of the median of all ranks, from the host to the GPU. [own]"""
