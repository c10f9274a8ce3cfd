"""Limits of control groups, as machines and containers of both versions have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrun.probe import cgroup
from tests.unit.probe.tree import grow

V2 = {"proc/self/cgroup": "0::/a/b\n"}
V1 = {"proc/self/cgroup": "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/a/b\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        (V2, None),
        (V2 | {"sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, None),
        (V2 | {"sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 1.5),
        (V2 | {"sys/fs/cgroup/a/cpu.max": "400000 100000\n"}, 4.0),
        (
            V2
            | {
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
                "sys/fs/cgroup/a/cpu.max": "200000 100000",
                "sys/fs/cgroup/cpu.max": "300000 100000",
            },
            2.0,
        ),
        # A container whose group is named by the host, and mounted as the top.
        (V2 | {"sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
        ({"sys/fs/cgroup/cpu.max": "100000 100000"}, 1.0),
        (V1 | {"sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us": "-1"}, None),
        (
            V1
            | {
                "sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        (V2 | {"sys/fs/cgroup/a/b/cpu.max": "nonsense"}, None),
        (V2 | {"sys/fs/cgroup/a/b/cpu.max": "100000 0"}, None),
        ({"proc/self/cgroup": "\n", "sys/fs/cgroup/cpu.max": "100000 100000"}, None),
    ],
)
def test_the_narrowest_quota_counts(files: dict[str, str], cores: float, tmp_path: Path) -> None:
    assert cgroup.cores(grow(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("files", "nbytes"),
    [
        ({}, None),
        (V2 | {"sys/fs/cgroup/a/b/memory.max": "max\n"}, None),
        (V2 | {"sys/fs/cgroup/a/b/memory.max": "1073741824\n"}, 1 << 30),
        (
            V2
            | {"sys/fs/cgroup/a/b/memory.max": "1073741824", "sys/fs/cgroup/a/memory.max": "4096"},
            4096,
        ),
        (V1 | {"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712"}, None),
        (V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648"}, 2 << 30),
    ],
)
def test_the_smallest_limit_on_memory_counts(
    files: dict[str, str], nbytes: int | None, tmp_path: Path
) -> None:
    assert cgroup.memory_limit_nbytes(grow(tmp_path, files)) == nbytes


A, B = "sys/fs/cgroup/a/", "sys/fs/cgroup/a/b/"
V1_B = "sys/fs/cgroup/memory/a/b/memory."


@pytest.mark.parametrize(
    ("files", "nbytes"),
    [
        ({}, None),
        (V2 | {B + "memory.current": "900"}, None),
        (V2 | {B + "memory.max": "max", B + "memory.current": "900"}, None),
        (V2 | {B + "memory.max": "1000"}, None),
        (V2 | {B + "memory.max": "1000", B + "memory.current": "900"}, 100),
        (V2 | {B + "memory.max": "1000", B + "memory.current": "1100"}, 0),
        (V2 | {B + "memory.max": "1000", B + "memory.current": "nonsense"}, None),
        (
            V2
            | {
                B + "memory.max": "1000",
                B + "memory.current": "900",
                B
                + "memory.stat": "anon 500\nfile 400\ninactive_file 250\nactive_file 50\nshmem 100",
            },
            400,
        ),
        (
            V2
            | {B + "memory.max": "1000", B + "memory.current": "100", B + "memory.stat": "x\nfile"},
            900,
        ),
        (
            V2
            | {
                B + "memory.max": "1000",
                B + "memory.current": "100",
                A + "memory.max": "5000",
                A + "memory.current": "4950",
            },
            50,
        ),
        (V1 | {V1_B + "limit_in_bytes": "1000", V1_B + "usage_in_bytes": "700"}, 300),
        (
            V1
            | {
                V1_B + "limit_in_bytes": "1000",
                V1_B + "usage_in_bytes": "700",
                V1_B + "stat": "inactive_file 1\ntotal_inactive_file 100\ntotal_active_file 20",
            },
            420,
        ),
    ],
)
def test_what_a_group_has_used_is_gone_but_for_cached_files(
    files: dict[str, str], nbytes: int | None, tmp_path: Path
) -> None:
    assert cgroup.memory_left_nbytes(grow(tmp_path, files)) == nbytes


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, None),
        (
            V2 | {"sys/fs/cgroup/a/b/pids.max": "max\n", "sys/fs/cgroup/a/b/pids.current": "3\n"},
            None,
        ),
        (
            V2 | {"sys/fs/cgroup/a/b/pids.max": "20\n", "sys/fs/cgroup/a/b/pids.current": "3\n"},
            (20, 3),
        ),
        # the outer one is narrower: others are below it too
        (
            V2
            | {
                "sys/fs/cgroup/a/b/pids.max": "20",
                "sys/fs/cgroup/a/b/pids.current": "3",
                "sys/fs/cgroup/a/pids.max": "100",
                "sys/fs/cgroup/a/pids.current": "95",
            },
            (100, 95),
        ),
        (
            {
                "proc/self/cgroup": "5:pids:/a\n",
                "sys/fs/cgroup/pids/a/pids.max": "7",
                "sys/fs/cgroup/pids/a/pids.current": "1",
            },
            (7, 1),
        ),
        (V2 | {"sys/fs/cgroup/a/b/pids.max": "20"}, None),
    ],
)
def test_the_limit_of_processes_is_the_one_that_leaves_the_fewest(
    files: dict[str, str], found: tuple[int, int] | None, tmp_path: Path
) -> None:
    assert cgroup.processes(grow(tmp_path, files)) == found
