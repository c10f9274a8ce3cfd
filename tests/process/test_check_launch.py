"""`distrun launch` looks at the machine first, and only as long as it may."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
Machine = Callable[..., Mapping[str, str]]
DRY = ("launch", "--dry-run")
UNREACHED = {f"memory_per_rank_{what}_nbytes": 1 << 60 for what in ("warn", "fail")}
"""Limits of memory that no machine has."""


def test_a_machine_that_is_not_fit_refuses_the_launch(distrun: Run, machine: Machine) -> None:
    environ = machine(FAKE_GPUS=2, FAKE_RECOVERY="1:2")
    result = distrun(*DRY, "train.py", env=environ)
    error, hint = result.stderr.splitlines()
    assert (result.returncode, result.stdout) == (3, "")
    assert error.startswith("distrun: error: this machine cannot run the job: GPU 1 ")
    assert "(gpu.recovery)" in error
    assert hint.endswith(". --no-check skips the check.")
    assert distrun(*DRY, "--no-check", "train.py", env=environ).returncode == 0


def test_a_gpu_that_the_job_does_not_use_refuses_nothing(distrun: Run, machine: Machine) -> None:
    environ = machine(FAKE_GPUS=2, FAKE_RECOVERY="1:2")
    result = distrun(*DRY, "--gpus", "0", "train.py", env=environ)
    assert result.returncode == 0, result.stderr
    result = distrun(*DRY, "train.py", env={**environ, "CUDA_VISIBLE_DEVICES": "0"})
    assert result.returncode == 0, result.stderr


def test_a_lost_gpu_is_missed_by_a_job_that_counts_on_it(distrun: Run, machine: Machine) -> None:
    environ = machine(FAKE_GPUS=3, FAKE_LOST="2")
    result = distrun(*DRY, "--nproc-per-node", "3", "train.py", env=environ)
    assert result.returncode == 3
    assert "2 usable GPUs, expected 3" in result.stderr
    assert ", and 1 more: see `distrun check`" in result.stderr


def test_a_broken_driver_is_no_reason_to_train_on_the_cpu(distrun: Run, machine: Machine) -> None:
    environ = machine(FAKE_GPUS=2, FAKE_INIT=18)
    result = distrun(*DRY, "train.py", env=environ)
    assert result.returncode == 3
    assert "of different versions" in result.stderr
    assert distrun(*DRY, "--nproc-per-node", "cpu", "train.py", env=environ).returncode == 0


def test_more_ranks_than_gpus_are_on_the_cpu_and_none_is_missed(
    distrun: Run, machine: Machine
) -> None:
    result = distrun(*DRY, "--nproc-per-node", "3", "train.py", env=machine(FAKE_GPUS=1))
    assert result.returncode == 0, result.stderr
    assert "fewer GPUs (1) than ranks (3)" in result.stdout


def test_a_warning_is_a_note_and_refuses_only_a_strict_launch(distrun: Run, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('trained')")
    config = "[tool.distrun.check]\nmemory-per-rank-warn-nbytes = 4_000_000_000_000_000\n"
    (tmp_path / "pyproject.toml").write_text(config)
    noted = distrun("launch", "--nproc-per-node", "1", "train.py")
    assert noted.returncode == 0
    warnings = [line for line in noted.stderr.splitlines() if "warning: " in line]
    assert len(warnings) == 1
    assert warnings[0].endswith("(host.memory)")
    strict = distrun("launch", "--nproc-per-node", "1", "--strict", "train.py")
    assert strict.returncode == 3
    assert "(host.memory)" in strict.stderr
    off = "[tool.distrun]\ncheck = false\nstrict = true\n"
    (tmp_path / "pyproject.toml").write_text(off)
    assert distrun(*DRY, "train.py").returncode == 0


def test_a_torch_for_the_cpu_asks_the_driver_nothing(
    distrun: Run, machine: Machine, tmp_path: Path
) -> None:
    environ = machine(FAKE_GPUS=2, FAKE_HANG=1, FAKE_LOG=tmp_path / "calls")
    version = tmp_path / "site" / "torch" / "version.py"
    version.write_text("__version__ = '2.13.0+cpu'\ncuda = None\n")
    result = distrun(*DRY, "--nproc-per-node", "2", "train.py", env=environ)
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "calls").exists()


def test_the_machine_here_says_nothing_of_other_hosts(distrun: Run, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    limits = "".join(f"{name} = {value}\n" for name, value in UNREACHED.items())
    (tmp_path / "pyproject.toml").write_text(f"[tool.distrun.check]\n{limits}")
    assert distrun(*DRY, "--nproc-per-node", "1", "train.py").returncode == 3
    words = ("--hosts", "127.0.0.1", "--nproc-per-node", "1")
    assert distrun(*DRY, *words, "train.py").returncode == 0


def test_the_api_refuses_too_and_can_be_told_not_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distrun.api.launch import prepare
    from distrun.errors import MachineError
    from distrun.spec.check import CheckTable
    from distrun.spec.job import Header, Job

    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("")
    table = CheckTable(**UNREACHED)  # type: ignore[arg-type]
    with pytest.raises(MachineError, match=r"host\.memory"):
        prepare(Job(script="train.py", nproc_per_node=1, check=table), {}, Header())
    assert prepare(Job(script="train.py", nproc_per_node=1, check=False), {}, Header()).plan


@pytest.mark.skipif(os.getuid() != 0, reason="needs root for a network namespace")
def test_a_loopback_that_is_down_is_told_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('started')")
    command = ["unshare", "-n", sys.executable, "-m", "distrun"]
    for arguments, code in ((("launch", "train.py"), 3), (("check",), 1)):
        done = subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code
        assert "127.0.0.1: Network is unreachable" in done.stdout + done.stderr
        assert "ip link set lo up" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("environ", "config", "ranks"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,7,1"}, "", 1),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, "", 2),
        ({"CUDA_VISIBLE_DEVICES": "0,0"}, "", 0),
        ({"CUDA_VISIBLE_DEVICES": "9"}, "", 0),
        ({}, 'env = {CUDA_VISIBLE_DEVICES = "1,2,3"}', 3),
        ({"CUDA_VISIBLE_DEVICES": "0"}, 'env = {CUDA_VISIBLE_DEVICES = "1,2"}', 2),
        ({}, 'env = {CUDA_VISIBLE_DEVICES = "0,0"}', 0),
        ({}, 'strategy = "dp"', 1),
        ({}, "", 4),
    ],
)
def test_launch_and_check_count_the_same_gpus_and_ranks(
    distrun: Run, machine: Machine, tmp_path: Path, environ: dict[str, str], config: str, ranks: int
) -> None:
    (tmp_path / "own.toml").write_text(f"[tool.distrun]\n{config}\n")
    env = {**machine(FAKE_GPUS=4), **environ}
    planned = distrun(*DRY, "--config", "own.toml", "train.py", env=env)
    checked = distrun("check", "--config", "own.toml", "--json", env=env)
    if ranks == 0:  # names that CUDA does not take
        assert planned.returncode == 3
        assert "no usable GPUs (CUDA_VISIBLE_DEVICES=" in planned.stderr
        assert "no usable GPUs (CUDA_VISIBLE_DEVICES=" in checked.stdout
    else:
        (line,) = (w for w in planned.stdout.split() if w.startswith("--nproc-per-node"))
        assert line == f"--nproc-per-node={ranks}"
        assert json.loads(checked.stdout)["job"]["nproc_per_node"] == ranks
