"""Memory and /dev/shm, over small trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distrun.probe import host_memory
from distrun.probe.reading import Unread
from tests.unit.probe.tree import grow

MEMINFO = "MemTotal:       24684084 kB\nMemFree: 1 kB\nMemAvailable:   23952300 kB\n"


def test_memory_is_what_the_kernel_says_in_bytes(tmp_path: Path) -> None:
    root = grow(tmp_path, {"proc/meminfo": MEMINFO})
    assert host_memory.meminfo_nbytes(root, "MemTotal") == 24684084 << 10
    assert host_memory.meminfo_nbytes(root, "MemAvailable") == 23952300 << 10
    with pytest.raises(Unread, match=r"/proc/meminfo has no SwapTotal"):
        host_memory.meminfo_nbytes(root, "SwapTotal")


def test_shared_memory_is_measured_and_free_is_no_more_than_all(tmp_path: Path) -> None:
    (tmp_path / "dev/shm").mkdir(parents=True)
    total, free = host_memory.shm_nbytes(tmp_path)
    assert 0 < free <= total
    assert host_memory.shm_writable(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_the_right_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "dev/shm").mkdir(parents=True)
    (tmp_path / "dev/shm").chmod(0o555)
    assert not host_memory.shm_writable(tmp_path)


def machine(root: Path, *names: str, namespace: str = "pid:[4026531836]") -> Path:
    """Return a machine with these files in /dev/shm and two processes."""
    grow(root, {f"dev/shm/{name}": "" for name in names})
    (root / "dev/shm").mkdir(parents=True, exist_ok=True)
    for pid in ("1", "22"):
        grow(root, {f"proc/{pid}/maps": "7f00-7f01 rw-s 0 00:17 5  /usr/lib/x.so\n"})
        (root / "proc" / pid / "fd").mkdir()
    grow(root, {"proc/meminfo": MEMINFO})
    (root / "proc/self/ns").mkdir(parents=True)
    (root / "proc/self/ns/pid").symlink_to(namespace)
    return root


def test_files_of_nccl_that_nobody_holds_are_leftovers(tmp_path: Path) -> None:
    root = machine(tmp_path, "nccl-mapped", "nccl-open", "nccl-gone", "sem.mp-1", "torch_5")
    with open(root / "proc/22/maps", "a") as maps:
        maps.write("7f02-7f03 rw-s 0 00:17 6  /dev/shm/nccl-mapped (deleted)\n")
    (root / "proc/1/fd/3").symlink_to("/dev/shm/nccl-open")
    (root / "proc/1/fd/4").symlink_to("socket:[5]")
    assert host_memory.shm_leftovers(root) == ("/dev/shm/nccl-gone",)


def test_without_files_of_nccl_no_process_is_looked_into(tmp_path: Path) -> None:
    root = machine(tmp_path, "sem.mp-1", namespace="pid:[4711]")
    assert host_memory.shm_leftovers(root) == ()


def test_a_container_cannot_say_who_holds_a_file(tmp_path: Path) -> None:
    root = machine(tmp_path, "nccl-1", namespace="pid:[4711]")
    with pytest.raises(Unread, match="processes outside this container"):
        host_memory.shm_leftovers(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every process")
def test_a_process_of_another_user_may_hold_it(tmp_path: Path) -> None:
    root = machine(tmp_path, "nccl-1")
    (root / "proc/22/fd").chmod(0)
    with pytest.raises(Unread, match="other users' processes"):
        host_memory.shm_leftovers(root)


def test_a_process_that_has_just_ended_holds_nothing(tmp_path: Path) -> None:
    root = machine(tmp_path, "nccl-1")
    (root / "proc/22/maps").unlink()
    assert host_memory.shm_leftovers(root) == ("/dev/shm/nccl-1",)
