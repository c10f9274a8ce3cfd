"""The host in one snapshot: a fact that cannot be had never takes another with it."""

from __future__ import annotations

import resource
from dataclasses import fields
from pathlib import Path

import pytest

from distrun.probe.host_snapshot import read_host_snapshot, shown_environ
from distrun.probe.reading import LEFT_OUT, Reading, Unread, within
from distrun.probe.runs_disk import read_runs_disk
from tests.unit.probe.tree import grow

MAY_BE_NONE = {
    "memory_limit_nbytes",
    "memory_limit_left_nbytes",
    "clock_offset_s",
    "clock_offset_error_s",
}


def test_every_fact_of_this_machine_is_there_or_missing_with_a_reason(tmp_path: Path) -> None:
    host = read_host_snapshot(runs_dir=tmp_path / "runs")
    for field in fields(host):
        value = getattr(host, field.name)
        assert value is not None or field.name in host.missing or field.name in MAY_BE_NONE
    assert host.hostname
    assert host.memory_total_nbytes
    assert host.runs_dir_writable is True
    assert not (tmp_path / "runs").exists()


def test_a_machine_without_proc_and_sys_has_the_rest(tmp_path: Path) -> None:
    host = read_host_snapshot(tmp_path)
    assert host.hostname
    assert host.nofile
    assert host.memory_total_nbytes is None
    assert host.missing["memory_total_nbytes"].endswith("meminfo: No such file or directory")
    assert host.missing["numa_nodes"].endswith("No such file or directory")
    assert host.missing["runs_dir_writable"] == "no directory was named"
    assert host.nics == ()
    assert "nics" in host.missing


def test_a_quick_look_leaves_out_the_kernel_log(tmp_path: Path) -> None:
    host = read_host_snapshot(quick=True)
    assert host.xids is None
    assert host.missing["xids"] == LEFT_OUT


def test_the_limit_of_processes_is_that_of_the_container_where_it_leaves_fewer(
    tmp_path: Path,
) -> None:
    root = grow(tmp_path, {"sys/fs/cgroup/pids.max": "20", "sys/fs/cgroup/pids.current": "3"})
    host = read_host_snapshot(root)
    assert (host.nproc, host.nproc_used) == (20, 3)
    assert not {"nproc", "nproc_used"} & set(host.missing)
    grow(tmp_path, {"sys/fs/cgroup/pids.max": f"{10**12}"})
    of_user, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    unlimited = of_user == resource.RLIM_INFINITY
    assert read_host_snapshot(root).nproc == (10**12 if unlimited else of_user)


def test_variables_of_the_job_are_shown_and_secrets_are_not() -> None:
    environ = {
        "NCCL_DEBUG": "INFO",
        "GLOO_SOCKET_IFNAME": "eth0",
        "CUDA_VISIBLE_DEVICES": "",
        "TORCH_LOGS": "+dynamo",
        "OMP_NUM_THREADS": "1",
        "NCCL_API_KEY": "hunter2",
        "TORCH_HUB_TOKEN": "hunter2",
        "CUDA_PASSWORD": "hunter2",
        "HOME": "/home/ada",
        "MY_NCCL_DEBUG": "x",
    }
    shown = shown_environ(environ)
    assert "hunter2" not in str(shown)
    assert shown["NCCL_API_KEY"] == shown["TORCH_HUB_TOKEN"] == "***"
    assert {"HOME", "MY_NCCL_DEBUG"}.isdisjoint(shown)
    assert shown["CUDA_VISIBLE_DEVICES"] == ""
    assert len(shown) == 8


@pytest.mark.parametrize("name", ["runs", "a/b/runs", "with space;$(x)/r\u00fcns"])
def test_a_runs_directory_that_is_not_there_yet_is_judged_by_where_it_would_be(
    name: str, tmp_path: Path
) -> None:
    writable, total, free = read_runs_disk(tmp_path / name)
    assert writable
    assert 0 < free <= total
    assert list(tmp_path.iterdir()) == []


def test_a_runs_directory_that_is_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    assert read_runs_disk(tmp_path / "runs")[0] is False


def test_a_relative_runs_directory_is_looked_for_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_runs_disk(Path("runs"))[0] is True


def test_one_answer_may_be_for_several_fields_and_its_failure_too() -> None:
    def refuse() -> tuple[int, int]:
        raise PermissionError(13, "Permission denied", "/dev/x")

    reading = Reading()
    reading.take(("a", "b"), lambda: (1, 2))
    reading.take(("c", "d"), refuse)
    reading.take("e", int, "no number")
    assert reading.values == {"a": 1, "b": 2}
    assert reading.missing["c"] == reading.missing["d"] == "/dev/x: Permission denied"
    assert "invalid literal" in reading.missing["e"]


def test_a_call_within_a_limit_gives_its_result_or_its_own_error() -> None:
    assert within(5, "it", lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, "it", lambda: 1 // 0)
    with pytest.raises(Unread, match="why not"):
        within(5, "it", lambda: (_ for _ in ()).throw(Unread("why not")))
