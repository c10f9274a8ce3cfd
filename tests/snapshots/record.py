"""Records the snapshots of this folder: python -m tests.snapshots.record [FOLDER]

Run by hand, from the root of the repository, when the probe reads more than it did; it needs gcc
and a machine without an NVIDIA driver. What NVML says comes out of the probe, through pynvml,
from the stand-in of tests/fakes. Host, software and time of every node are written here instead
of read, so that nothing of the machine that records gets into the files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distrun.probe.snapshot import Host, InfinibandPort, Nic, Software, Xid
from tests.fakes.driver import build_driver

TAKEN_AT = "2026-02-03T04:05:06+00:00"
GIB = 1 << 30
SOFTWARE = Software("0.1.0", "3.12.7", "2.13.0+cu130", "13.0", "2.28.9")
H100 = {
    "FAKE_NAME": "NVIDIA H100 80GB HBM3",
    "FAKE_NVLINKS": "18",
    "FAKE_SWITCH": "1",
    "FAKE_FABRIC": "3",
    "FAKE_FABRIC_MASK": "0x1aa",
    "FAKE_FABRIC_SUMMARY": "1",
    "FAKE_PER_SOCKET": "4",
}
A100 = {
    "FAKE_NAME": "NVIDIA A100-SXM4-40GB",
    "FAKE_DRIVER": "560.35.03",
    "FAKE_CUDA": "12060",
    "FAKE_VBIOS": "92.00.45.00.03",
    "FAKE_CAPABILITY": "80",
    "FAKE_MEMORY_GIB": "40",
    "FAKE_BAR1_MIB": "65536",
    "FAKE_NVLINKS": "12",
    "FAKE_PCIE_GENERATION": "4",
    "FAKE_PCIE_GENERATION_MAX": "4",
    "FAKE_POWER_LIMIT": "400",
    "FAKE_POWER_DEFAULT": "400",
    "FAKE_NOT_SUPPORTED": "nvmlDeviceGetUtilizationRates,nvmlDeviceGetSramEccErrorStatus",
}


def host(name: str, address: str, **changed: Any) -> Host:
    """Return a big machine in a cluster, without a fault."""
    state = ("4: ACTIVE", "5: LinkUp", "400 Gb/sec (4X NDR)", "InfiniBand", 0)
    ports = (InfinibandPort(f"mlx5_{n}", 1, *state, (f"ib{n}",), "MT_0000000838") for n in range(8))
    healthy = Host(
        hostname=name,
        hostname_addresses=(address,),
        kernel="6.8.0-60-generic",
        cpu_count=192,
        usable_cores=192.0,
        memory_total_nbytes=2048 * GIB,
        memory_available_nbytes=1990 * GIB,
        shm_total_nbytes=1024 * GIB,
        shm_free_nbytes=1024 * GIB,
        shm_writable=True,
        memlock_nbytes=-1,
        nofile=1048576,
        nproc=-1,
        numa_nodes=2,
        numa_balancing=False,
        clock_synchronized=True,
        nics=(Nic("eth0", True, 9000, 100000, (address,), True),),
        infiniband=tuple(ports),
        peermem=True,
        open_driver=True,
        xids=(),
        runs_dir="runs",
        runs_dir_writable=True,
        runs_dir_total_nbytes=7000 * GIB,
        runs_dir_free_nbytes=5000 * GIB,
    )
    return dataclasses.replace(healthy, **changed)


def virtual_machine() -> Host:
    """Return a small machine of a cloud."""
    speed = {"speed_mbps": "NotSupported"}
    return host(
        "vm1",
        "10.0.0.4",
        cpu_count=4,
        usable_cores=4.0,
        memory_total_nbytes=16 * GIB,
        memory_available_nbytes=14 * GIB,
        shm_total_nbytes=8 * GIB,
        shm_free_nbytes=8 * GIB,
        memlock_nbytes=8 << 20,
        nproc=63000,
        numa_nodes=1,
        nics=(Nic("ens5", True, 1500, None, ("10.0.0.4",), True, speed),),
        infiniband=(),
        peermem=False,
        open_driver=None,
        missing={"open_driver": "/proc/driver/nvidia/version: No such file or directory"},
        runs_dir_total_nbytes=100 * GIB,
        runs_dir_free_nbytes=60 * GIB,
    )


def healthy_8xh100(driver: Path) -> list[dict[str, Any]]:
    return [node("node1", driver, host("node1", "10.0.0.1"), H100 | {"FAKE_GPUS": "8"})]


def a100_mig(driver: Path) -> list[dict[str, Any]]:
    """Four A100 with MIG on, in a node with a driver for CUDA 12."""
    software = dataclasses.replace(SOFTWARE, torch="2.13.0+cu126", torch_cuda="12.6", nccl="2.27.5")
    fakes = A100 | {"FAKE_GPUS": "4", "FAKE_MIG": "1"}
    return [node("node1", driver, host("node1", "10.0.0.1"), fakes, software)]


def mixed_drivers(driver: Path) -> list[dict[str, Any]]:
    """Two nodes; the second has an older driver."""
    new = H100 | {"FAKE_GPUS": "2", "FAKE_BOARD": "n1"}
    old = H100 | {"FAKE_GPUS": "2", "FAKE_BOARD": "n2", "FAKE_DRIVER": "575.57.08"}
    return [
        node("node1", driver, host("node1", "10.0.0.1"), new),
        node("node2", driver, host("node2", "10.0.0.2"), old | {"FAKE_CUDA": "12090"}),
    ]


def one_lost_gpu(driver: Path) -> list[dict[str, Any]]:
    """GPU 2 of four has fallen off the bus, and the kernel log says so."""
    message = "NVRM: Xid (PCI:0000:3c:00): 79, GPU has fallen off the bus."
    xids = (Xid(79, "0000:3c:00.0", 412.5, message),)
    fakes = H100 | {"FAKE_GPUS": "4", "FAKE_LOST": "2"}
    return [node("node1", driver, host("node1", "10.0.0.1", xids=xids), fakes)]


def vm_without_nvml(driver: Path) -> list[dict[str, Any]]:
    """A machine without a driver, and a torch that needs none."""
    missing = {"nccl": "this torch is a CPU build"}
    software = Software("0.1.0", "3.12.7", "2.13.0+cpu", missing=missing)
    return [node("vm1", None, virtual_machine(), {}, software)]


def loopback_pair(driver: Path) -> list[dict[str, Any]]:
    """Two nodes whose own names mean 127.0.1.1, as Debian's installer leaves them."""
    loopback = ("127.0.1.1",)
    return [
        node(
            f"node{number}",
            driver,
            host(f"node{number}", f"10.0.0.{number}", hostname_addresses=loopback),
            H100 | {"FAKE_GPUS": "2", "FAKE_BOARD": f"n{number}"},
        )
        for number in (1, 2)
    ]


SCENARIOS = (
    healthy_8xh100,
    a100_mig,
    mixed_drivers,
    one_lost_gpu,
    vm_without_nvml,
    loopback_pair,
)


def node(
    name: str,
    driver: Path | None,
    found: Host,
    fakes: Mapping[str, str],
    software: Software = SOFTWARE,
) -> dict[str, Any]:
    """Run the probe over the stand-in, and give it an imaginary host."""
    environ = {key: v for key, v in os.environ.items() if key != "LD_LIBRARY_PATH"}
    if driver:
        environ["LD_LIBRARY_PATH"] = str(driver)
    words = [sys.executable, "-m", "distrun.probe", "--name", name]
    done = subprocess.run(words, env=environ | dict(fakes), capture_output=True, check=True)
    recorded: dict[str, Any] = json.loads(done.stdout)
    recorded["taken_at"] = TAKEN_AT
    recorded["host"] = dataclasses.asdict(found)
    recorded["software"] = dataclasses.asdict(software)
    return recorded


def record(folder: Path) -> None:
    """Write every snapshot, in the format of `distrun check --save`."""
    with tempfile.TemporaryDirectory() as directory:
        driver = build_driver(Path(directory))
        for scenario in SCENARIOS:
            text = json.dumps(scenario(driver), indent=1) + "\n"
            (folder / f"{scenario.__name__}.json").write_text(text)


if __name__ == "__main__":
    record(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
