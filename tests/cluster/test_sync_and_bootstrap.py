"""`--sync` and `--bootstrap` on real hosts: what arrives, what is told, what is left."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.cluster.hosts import Hosts
from tests.cluster.launches import SCRIPT, launched, nothing_is_left
from tests.cluster.slurm import Slurm

ONE_RANK = ("--nproc-per-node", "1")
THERE = "/home/job"
pytestmark = [pytest.mark.root, pytest.mark.timeout(200)]


def test_a_host_with_torch_alone_trains_with_a_project_that_was_sent(
    hosts: Hosts, tmp_path: Path
) -> None:
    plain = hosts.plain()
    words = ("--hosts", f"{plain},n01", *ONE_RANK, "--python", sys.executable)
    words = (*words, "--bootstrap", "--sync", "--workdir", THERE, "train.py", "end")
    with launched(hosts, tmp_path, *words) as launch:
        assert launch.ends() == 0, launch.printed
    assert f"{plain}: 2 files, " in launch.printed  # and what is printed
    for name in (plain, "n01"):
        assert hosts.run(name, ["cat", f"{THERE}/train.py"]).stdout.startswith("\nimport os")
        hosts.run(name, ["rm", "-r", THERE])
    nothing_is_left(hosts)
    assert hosts.files(plain) == []


def test_without_it_the_cure_is_named(hosts: Hosts, tmp_path: Path) -> None:
    words = ("--hosts", hosts.plain(), *ONE_RANK, "--python", sys.executable, "train.py", "end")
    with launched(hosts, tmp_path, *words) as launch:
        assert launch.ends() == 4
    assert "No module named" in launch.printed
    assert "--bootstrap sends it" in launch.printed


def test_a_launcher_that_is_killed_leaves_no_distrun_there(hosts: Hosts, tmp_path: Path) -> None:
    words = ("--hosts", "n01,n02", *ONE_RANK, "--bootstrap", "train.py", "wait")
    with launched(hosts, tmp_path, *words) as launch:
        launch.until("begun", 2)
        launch.child.kill()
        launch.ends()
    nothing_is_left(hosts)


def test_a_full_disk_there_is_told(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(3_000_000))
    words = ("--hosts", "n01,n02", *ONE_RANK, "--sync", "--workdir", "/tmp/job", "train.py", "end")
    with hosts.full_tmp("n02"), launched(hosts, tmp_path, *words) as launch:
        assert launch.ends() == 3
    assert "the project cannot be sent to '/tmp/job' on n02: " in launch.printed
    assert "No space left on device" in launch.printed


def test_a_directory_that_cannot_be_made_there_is_told(hosts: Hosts, tmp_path: Path) -> None:
    words = ("--hosts", "n01", *ONE_RANK, "--bootstrap", "--sync", "--workdir", "/sys/job")
    with launched(hosts, tmp_path, *words, "train.py", "end") as launch:
        assert launch.ends() == 3
    assert re.search("'/sys/job': (Operation not permitted|Read-only file)", launch.printed)


def test_in_a_slurm_job_both_go_through_srun(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "job.sh").write_text(
        f"#!/bin/sh\n{sys.executable} -m distrun launch --nproc-per-node 1 --bootstrap --sync"
        f" --workdir {THERE} train.py end\n"
    )
    options = ("--output=job.log", "--nodes=2", "--exclusive", "--mem=0")
    job = slurm.sbatch(tmp_path / "job.sh", *options)
    slurm.until(job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", timeout_s=100)
    printed = (tmp_path / "job.log").read_text()
    assert slurm.job(job)["JobState"] == "COMPLETED", printed
    assert "[1·1] begun 1" in printed and "n2: 3 files, " in printed, printed
    for node in ("n1", "n2"):
        assert slurm.hosts.run(node, ["cat", f"{THERE}/train.py"]).returncode == 0
        assert not [file for file in slurm.hosts.files(node) if "distrun-boot-" in file]
