"""Limits of this process and settings of the kernel."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import pytest

from distrun.probe import host_limits
from distrun.probe.reading import Unread
from tests.unit.probe.tree import grow


def test_the_quota_narrows_the_cores_that_the_mask_leaves(tmp_path: Path) -> None:
    mine = len(os.sched_getaffinity(0))
    assert host_limits.usable_cores(tmp_path) == mine
    wide = grow(tmp_path / "wide", {"sys/fs/cgroup/cpu.max": "99900000 100000"})
    assert host_limits.usable_cores(wide) == mine
    narrow = grow(tmp_path / "narrow", {"sys/fs/cgroup/cpu.max": "50000 100000"})
    assert host_limits.usable_cores(narrow) == 0.5


def test_a_soft_limit_is_a_number_and_unlimited_is_minus_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        assert host_limits.soft_limit("RLIMIT_NOFILE") == soft - 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    before = resource.getrlimit(resource.RLIMIT_CORE)
    if before[1] == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, before[1]))
        try:
            assert host_limits.soft_limit("RLIMIT_CORE") == -1
        finally:
            resource.setrlimit(resource.RLIMIT_CORE, before)


def test_a_limit_that_this_system_does_not_have_is_not_supported() -> None:
    with pytest.raises(Unread, match="NotSupported"):
        host_limits.soft_limit("RLIMIT_OF_ANOTHER_SYSTEM")


def test_memory_nodes_are_counted_among_what_else_is_there(tmp_path: Path) -> None:
    nodes = "sys/devices/system/node"
    names = ("node0/cpulist", "node1/cpulist", "node11/cpulist", "nodes", "online", "power/x")
    root = grow(tmp_path, {f"{nodes}/{name}": "" for name in names})
    assert host_limits.numa_nodes(root) == 3


@pytest.mark.parametrize(("text", "on"), [("0\n", False), ("1\n", True), ("2\n", True)])
def test_numa_balancing_is_any_mode_but_none(text: str, on: bool, tmp_path: Path) -> None:
    root = grow(tmp_path, {"proc/sys/kernel/numa_balancing": text})
    assert host_limits.numa_balancing(root) is on


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="adjtimex is Linux's")
def test_the_kernel_says_whether_the_clock_is_kept_right() -> None:
    state = host_limits.clock_synchronized()
    assert isinstance(state, bool)
    assert state == host_limits.clock_synchronized()


def test_processes_of_this_user_are_counted_with_their_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = {"proc/7/task/7/x": "", "proc/7/task/8/x": "", "proc/9/task/9/x": "", "proc/sys/y": ""}
    root = grow(tmp_path, tree)
    mine = (root / "proc/7").stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: mine or 1000)
    counted = host_limits.nproc_used(root)
    assert counted == (3 if mine else 0)  # what this test grew is root's where root runs it


def test_root_has_no_limit_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    with pytest.raises(Unread, match="this limit does not apply to root"):
        host_limits.nproc_used()
