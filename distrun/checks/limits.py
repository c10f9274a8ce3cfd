"""The thresholds of all rules. `[tool.distrun.check]` of a config file overrides them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The thresholds. [own] marks those that distrun has chosen itself."""

    # driver
    driver_for_cuda_11: int = 450
    """Oldest driver that runs CUDA 11 (docs.nvidia.com/deploy/cuda-compatibility)."""
    driver_for_cuda_12: int = 525
    """Oldest driver that runs CUDA 12 (same table)."""
    driver_for_cuda_13: int = 580
    """Oldest driver that runs CUDA 13 (same table)."""

    # memory of the GPU
    remapped_rows_max: int = 512
    """Rows that a GPU can remap in total; with more, replace it (NVIDIA's RMA policy)."""
    retired_pages_warn: int = 10
    """A warning from this many on (facebookresearch/gcm's default; a GPU can retire 64)."""
    gpu_used_warn_nbytes: int = 1 << 30
    """Memory in use before the job starts, by processes that are not visible."""
    gpu_used_warn_percent: float = 2.0
    """The same as a share of the memory; the smaller of both applies."""
    gpu_process_ignored_nbytes: int = 15_000_000
    """Processes that hold no more than this are ignored (facebookresearch/gcm: 15 MB)."""
    bar1_warn_nbytes: int = 256 << 20
    """At or below, RDMA cannot map enough of the GPU (Mellanox/nv_peer_memory#101)."""

    # heat, power, links
    temperature_margin_c: int = 5
    """Margin below the temperature at which the GPU slows down (leptonai/gpud's example)."""
    pcie_busy_percent: int = 50
    """Utilisation from which on the PCIe generation is judged: idle GPUs lower it. [own]"""
    nvlink_errors_warn: int = 15
    """Errors of one counter of one link (NVIDIA/nvidia-resiliency-ext flags above 15)."""

    # Xid
    xids_fatal: tuple[int, ...] = (48, 62, 63, 64, 74, 79, 92, 95, 119, 120)
    """Xids that need a reset or a repair (Azure/azurehpc-health-checks; 95 [own])."""

    # the host
    shm_fail_nbytes: int = 64 << 20
    """Docker's default for /dev/shm; NCCL takes some 10 MB a rank (NVIDIA/nccl#342)."""
    shm_warn_nbytes: int = 1 << 30
    """Enough for all ranks of a node and their DataLoader workers (NVIDIA/nccl#290)."""
    nofile_per_rank: int = 2
    """Descriptors for each rank of the world: gloo connects all pairs. [own]"""
    nofile_base: int = 512
    """Descriptors that a rank needs in addition. [own]"""
    nofile_warn: int = 65_536
    """Minimum for a job on several nodes. [own]"""
    nproc_per_rank: int = 256
    """Processes and threads of one rank, DataLoader workers included. [own]"""
    nproc_least_per_rank: int = 8
    """One rank: its process, torch's threads and gloo's; with fewer it cannot start. [own]"""
    nproc_base: int = 512
    """Processes and threads that the user's session needs in addition to the ranks. [own]"""
    cores_per_rank_warn: float = 2.0
    """With fewer cores per rank, data loading is too slow for a GPU. [own]"""
    memory_per_rank_fail_nbytes: int = 128 << 20
    """Memory of a rank that shares torch with its parent. [own]"""
    memory_per_rank_warn_nbytes: int = 256 << 20
    """Memory of a rank that shares nothing: torch, gloo and a tiny model. [own]"""
    runs_dir_free_percent: float = 10.0
    """Free space of the file system of the run directory. [own]"""
    nic_speed_warn_mbps: int = 10_000
    """At 1 Gb/s the float32 gradients of 100 M parameters take more than 3 s per step. [own]"""
    roce_mtu: int = 4_200
    """Required by RoCE's packets of 4096 bytes, with headers (NVIDIA/nccl#1524)."""
    link_downed_warn: int = 5
    """How often an InfiniBand link may have gone down since its counters started. [own]"""

    # several nodes
    clock_offset_s: float = 0.1
    """Above it, the order of events in merged logs is wrong, and TLS may fail. [own]"""

    # --deep
    matmul_share_warn: float = 0.8
    """Share of the median of all ranks; below it a device slows the others down. [own]"""
    copy_share_warn: float = 0.8
    """Share of the median of all ranks, for copies from the host to the GPU. [own]"""
