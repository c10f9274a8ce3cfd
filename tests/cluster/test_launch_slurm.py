"""`distrun launch` inside a Slurm job: it needs no flag, and every node of the job is used."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.launches import SCRIPT
from tests.cluster.slurm import Slurm
from tests.conftest import wait_until

LAUNCH = f"{sys.executable} -m distrun launch --nproc-per-node 1"
LIMIT_S = 100.0
pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


def submitted(slurm: Slurm, cwd: Path, line: str, *options: str) -> str:
    """Submit a user's own batch script with one line, in a directory with train.py."""
    (cwd / "train.py").write_text(SCRIPT)
    script = cwd / "job.sh"
    script.write_text(f"#!/bin/sh\n{line}\n")
    return slurm.sbatch(script, "--output=job.log", *options)


def ended(slurm: Slurm, cwd: Path, job: str, state: str) -> str:
    """Wait for the end of a job in this state; return what it has printed."""
    over = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT")
    slurm.until(job, *over, timeout_s=LIMIT_S)
    printed = (cwd / "job.log").read_text(errors="replace")
    assert slurm.job(job)["JobState"] == state, printed
    return printed


def record(cwd: Path) -> dict[str, Any]:
    (file,) = (cwd / "runs").glob("*/run.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def nothing_is_left(slurm: Slurm) -> None:
    """Wait until none of our processes is left on a node; Slurm's own may be."""

    def ours() -> list[str]:
        lines = [line for node in ("n1", "n2") for line in slurm.hosts.pids(node).values()]
        return [line for line in lines if "python" in line or "sleep" in line]

    wait_until(lambda: not ours(), 15)


@pytest.mark.parametrize("whole", [True, False])
def test_in_a_job_the_nodes_are_those_of_the_allocation(
    slurm: Slurm, tmp_path: Path, whole: bool
) -> None:
    share = ("--exclusive", "--mem=0") if whole else ("--ntasks-per-node=1", "--mem=500")
    job = submitted(slurm, tmp_path, f"{LAUNCH} train.py end", "--nodes=2", *share)
    printed = ended(slurm, tmp_path, job, "COMPLETED")
    assert {"[0·0] begun 0", "[1·1] begun 1"} <= set(printed.splitlines()), printed
    assert [node["host"] for node in record(tmp_path)["plan"]["nodes"]] == ["n1", "n2"]
    nothing_is_left(slurm)


def test_the_first_nodes_of_a_larger_job_may_be_enough(slurm: Slurm, tmp_path: Path) -> None:
    line = f"{LAUNCH} --nodes 1 train.py end"
    job = submitted(slurm, tmp_path, line, "--nodes=2", "--exclusive")
    assert "begun 0" in ended(slurm, tmp_path, job, "COMPLETED")
    assert record(tmp_path)["nnodes"] == 1


def test_a_spare_of_the_allocation_takes_the_place_of_a_node(slurm: Slurm, tmp_path: Path) -> None:
    once = "import os, sys\nsys.exit(os.environ['TORCHELASTIC_RESTART_COUNT'] == '0')\n"
    (tmp_path / "once.py").write_text(once)
    line = f"{LAUNCH} --nodes 1 --spare 1 --on crash=swap once.py"
    job = submitted(slurm, tmp_path, line, "--nodes=2", "--exclusive")
    printed = ended(slurm, tmp_path, job, "COMPLETED")
    assert "restarting: n2 takes the place of n1" in printed
    nothing_is_left(slurm)


def test_hosts_may_name_some_nodes_of_the_job(slurm: Slurm, tmp_path: Path) -> None:
    line = f"{LAUNCH} --hosts n2 train.py end"
    job = submitted(slurm, tmp_path, line, "--nodes=2", "--exclusive")
    assert "begun 0" in ended(slurm, tmp_path, job, "COMPLETED")
    assert [node["host"] for node in record(tmp_path)["plan"]["nodes"]] == ["n2"]


def test_a_job_of_one_node_is_like_any_machine(slurm: Slurm, tmp_path: Path) -> None:
    job = submitted(slurm, tmp_path, f"{LAUNCH} train.py end", "--nodes=1")
    assert "begun 0" in ended(slurm, tmp_path, job, "COMPLETED")
    assert record(tmp_path)["plan"]["nodes"][0]["command"] == []


def test_gpus_of_the_job_are_seen_in_its_steps(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "see.py").write_text(
        "import os; print('sees', os.environ.get('CUDA_VISIBLE_DEVICES'))"
    )
    line = f"{LAUNCH} --no-check see.py"
    job = submitted(slurm, tmp_path, line, "--nodes=2", "--exclusive", "--gres=gpu:2")
    printed = ended(slurm, tmp_path, job, "COMPLETED")
    assert printed.count("sees 0,1") == 2, printed


def test_a_failure_is_the_jobs_own_exit_code(slurm: Slurm, tmp_path: Path) -> None:
    job = submitted(slurm, tmp_path, f"{LAUNCH} train.py raise", "--nodes=2", "--exclusive")
    printed = ended(slurm, tmp_path, job, "FAILED")
    assert "rank 1 on n2 failed first: ValueError" in printed
    assert slurm.job(job)["ExitCode"] == "1:0"
    nothing_is_left(slurm)


def test_the_habit_of_srun_is_answered_with_what_to_write(slurm: Slurm, tmp_path: Path) -> None:
    line = f"srun --ntasks-per-node=1 {LAUNCH} train.py end"
    job = submitted(slurm, tmp_path, line, "--nodes=2", "--exclusive")
    printed = ended(slurm, tmp_path, job, "FAILED")
    assert "srun started distrun in 2 tasks" in printed
    assert "write `distrun launch …` without srun" in printed


def test_a_cancelled_job_ends_its_ranks_and_says_so(slurm: Slurm, tmp_path: Path) -> None:
    line = f"exec {LAUNCH} --grace 2 train.py wait"
    job = submitted(slurm, tmp_path, line, "--nodes=2", "--exclusive")
    log = tmp_path / "job.log"
    wait_until(lambda: log.exists() and log.read_text().count("begun") >= 2, LIMIT_S)
    slurm.run("scancel", job)
    ended(slurm, tmp_path, job, "CANCELLED")
    nothing_is_left(slurm)


def test_a_launch_that_is_stopped_before_its_ranks_begin_leaves_no_step(
    slurm: Slurm, tmp_path: Path
) -> None:
    line = (
        f"mkfifo go; {LAUNCH} train.py wait & "
        "until grep -q importing runs/*/events.jsonl 2>/dev/null; do :; done; "
        "kill -TERM $!; wait $!; echo ended with $?; read line < go"
    )
    job = submitted(slurm, tmp_path, line, "--nodes=2", "--exclusive")
    log = tmp_path / "job.log"
    wait_until(lambda: log.exists() and "ended with 143" in log.read_text(), LIMIT_S)
    nothing_is_left(slurm)  # while the job goes on
    (tmp_path / "go").write_text("on\n")
    assert "begun" not in ended(slurm, tmp_path, job, "COMPLETED")


def test_a_node_that_fails_is_named(slurm: Slurm, tmp_path: Path) -> None:
    job = submitted(
        slurm,
        tmp_path,
        f"exec {LAUNCH} --grace 2 train.py wait",
        *("--nodes=2", "--exclusive", "--no-kill"),
    )
    log = tmp_path / "job.log"
    wait_until(lambda: log.exists() and log.read_text().count("begun") >= 2, LIMIT_S)
    for pid, line in slurm.hosts.pids("n2").items():
        if "slurm" not in line:
            os.kill(pid, signal.SIGKILL)
    printed = ended(slurm, tmp_path, job, "FAILED")
    assert re.search("NODE LOST: .*n2", printed), printed
    assert slurm.job(job)["ExitCode"] == "5:0"
    nothing_is_left(slurm)


@pytest.mark.thorough  # the launches of a bench-comm and a verify are those of others
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("bench-comm", "--op", "all_reduce", "-b", "8", "-e", "8", "-n", "2"), '"n2"'),
        (("verify", "ddp_gpt", "--strategy", "ddp 2", "--steps", "2"), '"ddp 2"'),
    ],
    ids=["bench-comm", "verify"],
)
def test_a_command_behind_salloc_runs_over_the_nodes_of_its_job(
    slurm: Slurm, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    argv = ["salloc", "--nodes=2", "--exclusive", "--mem=0", sys.executable, "-m", "distrun"]
    done = slurm.run(*argv, *words, "--json", cwd=tmp_path, timeout_s=200)
    assert done.returncode == 0, done.stderr
    assert told in json.dumps(json.loads(done.stdout)), done.stdout
    nothing_is_left(slurm)
