"""GPUs through pynvml's real ctypes, over a stand-in for the driver's library."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from distrun.probe.node import read_node

Run = Callable[..., subprocess.CompletedProcess[str]]


def environments(dry_run: str) -> list[dict[str, str]]:
    """Return the variables of each printed line."""
    lines = [shlex.split(line) for line in dry_run.splitlines() if not line.startswith("#")]
    return [dict(w.split("=", 1) for w in line[1 : line.index("torchrun")]) for line in lines]


def test_auto_takes_one_rank_a_gpu(distrun: Run, machine: Callable[..., Mapping[str, str]]) -> None:
    # There are fewer cores here than a machine with so many GPUs has: hence --no-check.
    result = distrun("launch", "--dry-run", "--no-check", "train.py", env=machine(FAKE_GPUS=4))
    assert "--nproc-per-node=4" in result.stdout, result.stderr


def test_emulated_nodes_share_the_named_gpus_out(
    distrun: Run, machine: Callable[..., Mapping[str, str]]
) -> None:
    words = ("launch", "--dry-run", "--no-check", "--nodes", 2, "--gpus", "0,1,3,2", "train.py")
    result = distrun(*words, env=machine(FAKE_GPUS=4))
    found = environments(result.stdout)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in found] == ["0,1", "3,2"]
    assert all(e["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID" for e in found)


def test_free_takes_gpus_that_nobody_uses(
    distrun: Run, machine: Callable[..., Mapping[str, str]]
) -> None:
    environ = machine(FAKE_GPUS=4, FAKE_BUSY="0,2")
    result = distrun("launch", "--dry-run", "--gpus", "free:2", "train.py", env=environ)
    assert environments(result.stdout)[0]["CUDA_VISIBLE_DEVICES"] == "1,3"
    refused = distrun("launch", "--dry-run", "--gpus", "free:3", "train.py", env=environ)
    assert refused.returncode == 3
    assert "asks for 3 unused GPUs, 2 of 4 are unused" in refused.stderr


def test_more_ranks_than_the_named_gpus_are_refused(
    distrun: Run, machine: Callable[..., Mapping[str, str]]
) -> None:
    words = ("launch", "--gpus", "0,1", "--nproc-per-node", 4, "train.py")
    result = distrun(*words, env=machine(FAKE_GPUS=4))
    assert result.returncode == 3
    assert "--nproc-per-node 4 is above the 2 GPUs a node" in result.stderr


def test_a_busy_gpu_is_refused_with_who_is_on_it(
    distrun: Run, machine: Callable[..., Mapping[str, str]]
) -> None:
    words = ("launch", "--dry-run", "--gpus", "0,1", "train.py")
    environ = machine(FAKE_GPUS=2, FAKE_BUSY="1", FAKE_PID=os.getpid())
    result = distrun(*words, env=environ)
    assert result.returncode == 3
    user, command = psutil.Process().username(), Path(psutil.Process().cmdline()[0]).name
    assert f"names GPUs in use: GPU 1: pid {os.getpid()} ({user}, {command}" in result.stderr
    assert "40.0 GiB)" in result.stderr
    assert "free:2 picks unused GPUs; or wait; or --no-check" in result.stderr


def test_of_busy_gpus_that_nobody_named_a_launch_warns_and_goes_on(
    distrun: Run, machine: Callable[..., Mapping[str, str]]
) -> None:
    environ = machine(FAKE_GPUS=2, FAKE_BUSY="1", FAKE_PID=os.getpid())
    result = distrun("launch", "--dry-run", "train.py", env=environ)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if "gpu.processes" in line]
    assert "warning: GPU 1 " in line
    assert f"pid {os.getpid()}" in line
    strict = distrun("launch", "--dry-run", "--strict", "train.py", env=environ)
    assert strict.returncode == 3


def test_a_lost_gpu_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch, machine: Callable[..., Mapping[str, str]], distrun: Run
) -> None:
    environ = machine(FAKE_GPUS=3, FAKE_LOST="1")
    result = distrun("launch", "--dry-run", "--gpus", "0,1", "train.py", env=environ)
    assert result.returncode == 3
    assert "names GPU 1; this machine has 2: 0, 2" in result.stderr


def test_a_driver_that_is_not_loaded_is_told(
    distrun: Run, machine: Callable[..., Mapping[str, str]]
) -> None:
    environ = machine(FAKE_GPUS=3, FAKE_INIT=9)
    result = distrun("launch", "--nproc-per-node", "gpu", "train.py", env=environ)
    assert result.returncode == 3
    assert "finds no GPU: the NVIDIA driver is installed and not loaded" in result.stderr


def test_a_driver_that_hangs_is_given_up(
    distrun: Run, machine: Callable[..., Mapping[str, str]]
) -> None:
    environ = machine(FAKE_GPUS=3, FAKE_HANG=1)
    result = distrun("launch", "--nproc-per-node", "gpu", "train.py", env=environ)
    assert result.returncode == 3
    assert "NVML did not answer within 5 s" in result.stderr


def test_without_a_driver_there_is_no_gpu() -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has a driver")
    assert read_node(quick=True).nvml.gpus == ()
