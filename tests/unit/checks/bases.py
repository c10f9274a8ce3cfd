"""Healthy machines, and how to break exactly one thing of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from distrun.checks.judge import judge
from distrun.checks.limits import Limits
from distrun.checks.rule import Finding, Job
from distrun.probe.snapshot import (
    Gpu,
    GpuPair,
    Host,
    InfinibandPort,
    Nic,
    Node,
    NvLink,
    Nvml,
    Reach,
    Software,
)

NAMES = ("node0", "node1", "node2", "node3")
NO_DRIVER = Nvml("no NVIDIA driver is installed", "absent")


def h100(index: int) -> Gpu:
    """Return a healthy GPU of eight behind NVSwitches, at rest."""
    return Gpu(
        index=index,
        uuid=f"GPU-{index:08x}-1234-5678-9abc-def012345678",
        pci_id=f"0000:{0x19 + 0x10 * index:02x}:00.0",
        name="NVIDIA H100 80GB HBM3",
        compute_capability="9.0",
        vbios_version="96.00.89.00.01",
        memory_total_nbytes=81559 << 20,
        memory_used_nbytes=4 << 20,
        utilization_percent=0,
        temperature_c=34,
        temperature_slowdown_c=89,
        temperature_max_c=87,
        power_w=72.5,
        power_limit_w=700.0,
        power_default_limit_w=700.0,
        recovery_action=0,
        mig_mode=False,
        mig_mode_pending=False,
        compute_mode=0,
        persistence_mode=True,
        ecc_mode=True,
        ecc_mode_pending=True,
        ecc_volatile_uncorrected=0,
        ecc_aggregate_uncorrected=0,
        ecc_sram_threshold_exceeded=False,
        remapped_rows_uncorrected=0,
        remapped_rows_pending=False,
        remapped_rows_failure=False,
        clock_events=0x1,
        pcie_width=16,
        pcie_width_max=16,
        pcie_generation=5,
        pcie_generation_max=5,
        bar1_total_nbytes=128 << 30,
        bar1_used_nbytes=1 << 20,
        fabric_state=3,
        fabric_status=0,
        fabric_clique_id=0,
        fabric_cluster_uuid="0" * 32,
        fabric_health_mask=0b01_10_10_10_10,
        fabric_health_summary=1,
        nvlinks=tuple(NvLink(n, True, remote_type="switch") for n in range(18)),
        processes=(),
        missing={"retired_pages": "NotSupported", "retired_pages_pending": "NotSupported"},
    )


def server(name: str = "node0") -> Node:
    """Return a healthy node of eight H100 on two sockets, with an InfiniBand port for each."""
    ports = tuple(
        InfinibandPort(
            f"mlx5_{n}", 1, "4: ACTIVE", "5: LinkUp", "400 Gb/sec (4X NDR)", "InfiniBand", 0
        )
        for n in range(8)
    )
    host = Host(
        hostname=name,
        hostname_addresses=(f"10.0.0.1{name[-1]}",),
        kernel="5.15.0-131-generic",
        cpu_count=192,
        usable_cores=192.0,
        memory_total_nbytes=2015 << 30,
        memory_available_nbytes=1980 << 30,
        shm_total_nbytes=1007 << 30,
        shm_free_nbytes=1007 << 30,
        shm_writable=True,
        memlock_nbytes=-1,
        nofile=1_048_576,
        nproc=-1,
        numa_nodes=2,
        numa_balancing=False,
        clock_synchronized=True,
        nics=(
            Nic("eth0", True, 9000, 25_000, (f"10.0.0.1{name[-1]}",), True),
            Nic("eth1", False, 1500, 25_000, (), True),
        ),
        infiniband=ports,
        peermem=True,
        xids=(),
        runs_dir="/data/runs",
        runs_dir_writable=True,
        runs_dir_total_nbytes=1000 << 30,
        runs_dir_free_nbytes=500 << 30,
    )
    pairs = tuple(
        GpuPair(a, b, 40 if a // 4 == b // 4 else 50, 0, 0, 0, nvlinks=18)
        for a in range(8)
        for b in range(a + 1, 8)
    )
    nvml = Nvml("", "", "580.159.03", 13000, 0, tuple(map(h100, range(8))), pairs)
    software = Software("1.0.0", "3.12.3", "2.13.0+cu130", "13.0", "2.29.3")
    return Node(name, "2026-01-31T12:00:00+00:00", nvml, host, software)


def laptop() -> Node:
    """Return a machine without a GPU, in a container, as Docker makes it."""
    host = Host(
        hostname="3f2a9c",
        hostname_addresses=("172.17.0.2",),
        kernel="6.8.0-51-generic",
        cpu_count=8,
        usable_cores=2.0,
        memory_total_nbytes=16 << 30,
        memory_limit_nbytes=4 << 30,
        memory_available_nbytes=9 << 30,
        shm_total_nbytes=64 << 20,
        shm_free_nbytes=64 << 20,
        shm_writable=True,
        memlock_nbytes=8 << 20,
        nofile=1024,
        nproc=62_000,
        numa_nodes=1,
        numa_balancing=False,
        clock_synchronized=False,
        nics=(
            Nic("eth0", True, 1500, None, ("172.17.0.2",), False, {"speed_mbps": "NotSupported"}),
        ),
        peermem=False,
        xids=(),
        runs_dir="/work/runs",
        runs_dir_writable=True,
        runs_dir_total_nbytes=100 << 30,
        runs_dir_free_nbytes=30 << 30,
    )
    software = Software("1.0.0", "3.11.9", "2.13.0+cpu", missing={"nccl": "a CPU build"})
    return Node("this machine", "2026-01-31T12:00:00+00:00", NO_DRIVER, host, software)


def cluster() -> tuple[Node, ...]:
    """Return four equal nodes that reach one another; node0 asks for the clocks."""
    return tuple(map(_among_others, NAMES))


def _among_others(name: str) -> Node:
    node = server(name)
    reaches = tuple(
        Reach(name, other, f"10.0.0.1{other[-1]}", port)
        for other in NAMES
        if other != name
        for port in (29500, 41234)
    )
    host = node.host
    if name != "node0":
        host = dataclasses.replace(host, clock_offset_s=0.002, clock_offset_error_s=0.001)
    return dataclasses.replace(node, host=host, reaches=reaches)


def with_field(thing: Any, path: str, value: Any) -> Any:
    """Return a copy with one field changed: `0.nvml.gpus.3.temperature_c`."""
    first, _, rest = path.partition(".")
    if isinstance(thing, tuple):
        index = int(first)
        inner = with_field(thing[index], rest, value) if rest else value
        return (*thing[:index], inner, *thing[index + 1 :])
    if isinstance(thing, dict):
        assert not rest, path
        return {**thing, first: value}
    inner = with_field(getattr(thing, first), rest, value) if rest else value
    return dataclasses.replace(thing, **{first: inner})


def without_field(nodes: tuple[Node, ...], path: str, reason: str) -> tuple[Node, ...]:
    """Return copies with one fact that could not be read, and why."""
    parent, _, name = path.rpartition(".")
    nodes = with_field(nodes, path, () if name in _NEVER_NONE else None)
    return with_field(nodes, f"{parent}.missing.{name}", reason)


_NEVER_NONE = ("nics", "infiniband", "hostname_addresses", "shm_leftovers")


def job_for(nodes: Sequence[Node], **fields: Any) -> Job:
    """Return a job on all GPUs of these nodes, or of two ranks on CPUs."""
    gpus = max(len(node.nvml.gpus) for node in nodes)
    job = Job(gpus or 2, len(nodes), uses_gpus=gpus > 0, master_port=29500)
    return dataclasses.replace(job, **fields)


def findings(
    nodes: Sequence[Node], rule_id: str = "", job: Job | None = None, **options: Any
) -> list[Finding]:
    """Judge nodes; only what one rule found, if it is named."""
    found = judge(nodes, job or job_for(nodes), Limits(), **options)
    return [finding for finding in found if rule_id in ("", finding.id)]
