"""Reads the host's part of a node's snapshot: all but GPUs and versions."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from distrun.env import is_secret
from distrun.probe import cgroup, host_limits, host_memory, network
from distrun.probe.reading import LEFT_OUT, Reading
from distrun.probe.runs_disk import read_runs_disk
from distrun.probe.snapshot import Host

_PREFIXES = ("NCCL_", "GLOO_", "CUDA_", "TORCH_", "OMP_")
_LIMITS = {"memlock_nbytes": "RLIMIT_MEMLOCK", "nofile": "RLIMIT_NOFILE", "nproc": "RLIMIT_NPROC"}
_MASK = "***"


def read_host_snapshot(
    root: Path = Path("/"),
    *,
    runs_dir: Path | None = None,
    quick: bool = False,
    addresses: bool = True,
) -> Host:
    """Take the snapshot.

    Args:
        root: Where /proc, /sys and /dev are.
        runs_dir: Where runs are recorded; None: not read.
        quick: Leave out the kernel log and leftovers in /dev/shm.
        addresses: Read the addresses of network interfaces.
    """
    found = Reading()
    hostname = socket.gethostname()
    found.take("hostname_addresses", network.hostname_addresses, hostname)
    _read_machine(found, root)
    _read_shm(found, root)
    found.take("clock_synchronized", host_limits.clock_synchronized)
    for field, limit in _LIMITS.items():
        found.take(field, host_limits.soft_limit, limit)
    found.take("nproc_used", host_limits.nproc_used)
    _read_processes_of_group(found, root)
    _read_network(found, root, addresses)
    if quick:
        found.missing.update(xids=LEFT_OUT, shm_leftovers=LEFT_OUT)
    else:
        from distrun.probe.kernel_log import read_xids  # compiling its patterns takes 1 ms

        found.take("xids", read_xids, root)
        found.take("shm_leftovers", host_memory.shm_leftovers, root)
    disk = ("runs_dir_writable", "runs_dir_total_nbytes", "runs_dir_free_nbytes")
    if runs_dir is not None:
        found.take(disk, read_runs_disk, runs_dir)
    else:
        found.missing.update(dict.fromkeys(disk, "no directory was named"))
    return Host(
        hostname=hostname,
        kernel=os.uname().release,
        cpu_count=os.cpu_count(),
        runs_dir="" if runs_dir is None else str(runs_dir),
        environ=shown_environ(os.environ),
        **found.fields(),
    )


def _read_machine(found: Reading, root: Path) -> None:
    found.take("usable_cores", host_limits.usable_cores, root)
    found.take("memory_total_nbytes", host_memory.meminfo_nbytes, root, "MemTotal")
    found.take("memory_available_nbytes", host_memory.meminfo_nbytes, root, "MemAvailable")
    found.take("memory_limit_nbytes", cgroup.memory_limit_nbytes, root)
    found.take("memory_limit_left_nbytes", cgroup.memory_left_nbytes, root)
    found.take("numa_nodes", host_limits.numa_nodes, root)
    found.take("numa_balancing", host_limits.numa_balancing, root)


def _read_processes_of_group(found: Reading, root: Path) -> None:
    """Let the control group's limit take the place of the user's, where it leaves fewer."""
    limit, used = found.values.get("nproc"), found.values.get("nproc_used")
    group = cgroup.processes(root)
    if group is None or (limit is not None and 0 <= limit <= group[0] - group[1] + (used or 0)):
        return
    for field, value in zip(("nproc", "nproc_used"), group, strict=True):
        found.values[field] = value
        found.missing.pop(field, None)


def _read_shm(found: Reading, root: Path) -> None:
    found.take(("shm_total_nbytes", "shm_free_nbytes"), host_memory.shm_nbytes, root)
    found.take("shm_writable", host_memory.shm_writable, root)


def _read_network(found: Reading, root: Path, wanted: bool) -> None:
    addresses = Reading()
    if wanted:  # importing psutil takes half of a quick probe's time
        addresses.take("addresses", network.ip_addresses)
    known, why_none = (
        addresses.values.get("addresses"),
        addresses.missing.get("addresses", LEFT_OUT),
    )
    found.take("loopback_problem", network.loopback_problem)
    found.take("nics", network.read_nics, root, known, why_none)
    found.take("infiniband", network.read_infiniband, root)
    found.take("peermem", network.peer_memory, root)
    found.take("open_driver", network.has_open_driver, root)


def shown_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that affect a distributed job, with secrets masked."""
    return {
        name: _MASK if is_secret(name) else value
        for name, value in sorted(environ.items())
        if name.startswith(_PREFIXES)
    }
