"""`distrun launch --on slurm` from a login node: one script, one run, followed to its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.launches import LIMIT_S, SCRIPT, Launch
from tests.cluster.slurm import Slurm
from tests.conftest import wait_until

TWO = ("--on", "slurm", "--nodes", "2", "--nproc-per-node", "1")
RECIPE = Path(__file__).parents[2] / "recipes" / "ddp.py"
pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

SIGNALLED = """
import os, signal, sys, time
import torch.distributed as dist
def warned(signum, frame):
    print("warned", os.environ["RANK"], flush=True)
signal.signal(signal.SIGUSR2, warned)
dist.init_process_group("gloo")
again = os.environ["TORCHELASTIC_RESTART_COUNT"]
print("begun", os.environ["RANK"], "attempt", again, flush=True)
while again == "0":
    time.sleep(0.1)
dist.barrier()
dist.destroy_process_group()
"""


@contextmanager
def submitted(
    slurm: Slurm, cwd: Path, *words: str, environ: Mapping[str, str] | None = None
) -> Iterator[Launch]:
    (cwd / "train.py").write_text(SCRIPT)
    launch = Launch(words, {**slurm.environ(), **(environ or {})}, cwd)
    try:
        yield launch
    finally:
        launch.close()


def distrun(slurm: Slurm, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return slurm.run(sys.executable, "-m", "distrun", *words, cwd=cwd, timeout_s=LIMIT_S)


def record(cwd: Path) -> dict[str, Any]:
    (file,) = (cwd / "runs").glob("*/run.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def hold_the_nodes(slurm: Slurm, cwd: Path) -> str:
    """Let another job have both nodes."""
    script = cwd / "other.sh"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    job = slurm.sbatch(script, "--nodes=2", "--exclusive", "--output=/dev/null", "--time=10")
    slurm.until(job, "RUNNING", timeout_s=LIMIT_S)
    return job


def nothing_is_left(slurm: Slurm) -> None:
    def ours() -> list[str]:
        lines = [line for node in ("n1", "n2") for line in slurm.hosts.pids(node).values()]
        return [line for line in lines if "python" in line or "sleep" in line]

    wait_until(lambda: not ours(), 15)


def last_loss(text: str) -> str:
    return re.findall(r"loss (\d\.\d+)", text)[-1]


def test_two_nodes_train_to_the_same_loss_as_here(slurm: Slurm, tmp_path: Path) -> None:
    words = ("--nproc-per-node", "1", str(RECIPE), "--steps", "12")
    with submitted(slurm, tmp_path, "--on", "slurm", "--nodes", "2", *words) as launch:
        assert launch.ends() == 0, launch.printed
    assert re.search(r"job \d+: (PENDING|RUNNING)", launch.printed)
    found = launch.record()
    assert [node["host"] for node in found["plan"]["nodes"]] == ["n1", "n2"]
    assert found["outcome"] == "succeeded" and found["job_id"] and found["attempts"] == 1
    local = distrun(slurm, tmp_path, "launch", "--nodes", "2", *words)
    assert last_loss(local.stdout) == last_loss(launch.printed)
    nothing_is_left(slurm)


def test_a_failing_rank_is_named_and_its_code_is_the_commands(slurm: Slurm, tmp_path: Path) -> None:
    with submitted(slurm, tmp_path, *TWO, "train.py", "raise") as launch:
        assert launch.ends() == 1
    assert "rank 1 on n2 failed first: ValueError: no such sample: 7" in launch.printed
    assert launch.record()["exit_code"] == 1


def test_a_secret_reaches_the_ranks_and_stands_in_no_file(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "see.py").write_text(
        "import os; print('sees', len(os.environ['MY_TOKEN']), os.environ['PLAIN'])"
    )
    env = ("--env", "MY_TOKEN=hunter2", "--env", "PLAIN=it's $x")
    with submitted(slurm, tmp_path, *TWO, *env, "see.py") as launch:
        assert launch.ends() == 0, launch.printed
    assert launch.printed.count("sees 7 it's $x") == 2, launch.printed
    for file in (tmp_path / "runs").rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes(), file


def test_a_refusal_inside_the_job_is_told_here(slurm: Slurm, tmp_path: Path) -> None:
    words = ("--on", "slurm", "--nodes", "2", "--gpus", "7", "train.py", "end")
    with submitted(slurm, tmp_path, *words) as launch:
        assert launch.ends() == 3, launch.printed
    assert "NOT STARTED: " in launch.printed and "GPU" in launch.printed


def test_a_job_that_waits_says_why_and_can_be_cancelled(slurm: Slurm, tmp_path: Path) -> None:
    hold_the_nodes(slurm, tmp_path)
    with submitted(slurm, tmp_path, *TWO, "--time", "5m", "train.py", "end") as launch:
        launch.until("PENDING (Resources): it waits for enough free nodes; Slurm expects")
        (row,) = json.loads(distrun(slurm, tmp_path, "ps", "--json").stdout)
        assert row["state"] == "pending (Resources)"
        launch.child.send_signal(signal.SIGTERM)
        assert launch.ends() == 143, launch.printed
    assert launch.printed.count("PENDING (Resources)") <= 3
    assert record(tmp_path)["outcome"] == "cancelled"
    assert "CANCELLED: " in launch.printed


def test_sigterm_ends_the_ranks_in_order(slurm: Slurm, tmp_path: Path) -> None:
    with submitted(slurm, tmp_path, *TWO, "--grace", "2", "train.py", "wait") as launch:
        launch.until("begun", 2)
        launch.child.send_signal(signal.SIGTERM)
        assert launch.ends() == 143
    assert record(tmp_path)["outcome"] == "terminated"
    nothing_is_left(slurm)


@pytest.mark.thorough  # tests/cluster/test_batch_jobs.py cancels
def test_scancel_of_somebody_else_is_the_end(slurm: Slurm, tmp_path: Path) -> None:
    """After KILL_WAIT_S Slurm kills what has not ended, that which would sweep included."""
    with submitted(slurm, tmp_path, *TWO, "--grace", "1", "train.py", "talk") as launch:
        launch.until("begun", 2)
        slurm.run("scancel", record(tmp_path)["job_id"])
        assert launch.ends() == 143
    nothing_is_left(slurm)


def test_where_the_ranks_are_is_asked_on_the_jobs_first_node(slurm: Slurm, tmp_path: Path) -> None:
    with submitted(slurm, tmp_path, *TWO, "--grace", "1", "train.py", "wait") as launch:
        launch.until("begun", 2)
        refused = distrun(slurm, tmp_path, "stacks")
        assert refused.returncode == 2
        command = refused.stderr.partition("on the job's first node: ")[2].split()
        begin = command.index("distrun")
        found = slurm.run(*command[:begin], sys.executable, "-m", *command[begin:], timeout_s=60)
        assert found.stdout.splitlines()[0] == "2 of 2 ranks: 0-1", found.stderr
        assert "<module> → sleep" in found.stdout
        assert distrun(slurm, tmp_path, "stop").returncode == 0
    nothing_is_left(slurm)


def test_a_node_that_goes_down_ends_the_run_with_5(slurm: Slurm, tmp_path: Path) -> None:
    with submitted(slurm, tmp_path, *TWO, "--grace", "1", "train.py", "wait") as launch:
        launch.until("begun", 2)
        slurm.down("n1")
        assert launch.ends() in (5, 143), launch.printed
    assert record(tmp_path)["outcome"] in ("node lost", "terminated")


def test_slurm_refuses_a_partition_in_its_own_words(slurm: Slurm, tmp_path: Path) -> None:
    with submitted(slurm, tmp_path, *TWO, "--partition", "nope", "train.py", "end") as launch:
        assert launch.ends() == 3
    assert "invalid partition specified: nope" in launch.printed
    assert "`sinfo -s` lists the partitions" in launch.printed
    assert not list((tmp_path / "runs").iterdir())


def test_a_preempted_job_goes_on_in_the_same_record(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    words = ("--partition", "spot", "--requeue", "--grace", "1", "signalled.py")
    with submitted(slurm, tmp_path, *TWO, *words) as launch:
        launch.until("attempt 0", 2)
        other = hold_the_nodes(slurm, tmp_path)
        launch.until("PENDING (")
        slurm.run("scancel", other)
        launch.until("attempt 1", 2)
        assert launch.ends() == 0, launch.printed
    found = record(tmp_path)
    assert found["attempts"] == 2 and found["outcome"] == "succeeded"
    log = next((tmp_path / "runs").glob("*/logs/node0/rank0.log")).read_text()
    assert "begun 0 attempt 0" in log and "begun 0 attempt 1" in log


SLOW = """
import sys, time
sys.path.insert(0, {recipes!r})
import ddp_gpt

batch = ddp_gpt.batch

def slow_batch(*args):
    time.sleep(0.2)
    return batch(*args)

ddp_gpt.batch = slow_batch
ddp_gpt.main()
"""


def test_a_preempted_recipe_ends_with_the_loss_of_an_undisturbed_one(
    slurm: Slurm, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(SLOW.format(recipes=str(RECIPE.parent)))
    flags = ("--steps", "50", "--batch-size", "4", "--seq-len", "16", "--eval-every", "0")
    words = ("slow.py", *flags, "--precision", "float64", "--log-every", "1")
    spot = ("--partition", "spot", "--requeue", "--grace", "10")
    with submitted(slurm, tmp_path, *TWO, *spot, *words) as launch:
        launch.until("step 3/50 ")
        other = hold_the_nodes(slurm, tmp_path)
        launch.until("PENDING (")
        slurm.run("scancel", other)
        assert launch.ends() == 0, launch.printed
    assert record(tmp_path)["attempts"] == 2
    (alone := tmp_path / "alone").mkdir()
    (alone / "slow.py").write_text((tmp_path / "slow.py").read_text().replace("0.2", "0"))
    undisturbed = subprocess.run(
        [sys.executable, "-m", "distrun", "launch", "--nproc-per-node", "2", *words],
        cwd=alone,
        capture_output=True,
        timeout=LIMIT_S,
    )
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=1e-12)


def losses(cwd: Path) -> dict[int, float]:
    """Return the loss of every step."""
    (file,) = (cwd / "runs").glob("*/metrics.jsonl")
    told = [json.loads(line) for line in file.read_text().splitlines()]
    found = {each["step"]: each["loss"] for each in told if "loss" in each}
    assert found.keys() == set(range(1, 51))
    return found


def test_the_time_limit_is_near_and_the_job_is_put_back(slurm: Slurm, tmp_path: Path) -> None:
    """A minute is Slurm's shortest limit: the warning comes at any time within it."""
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    words = ("--time", "60s", "--requeue", "--grace", "1", "signalled.py")
    with submitted(slurm, tmp_path, *TWO, *words) as launch:
        launch.until("attempt 0", 2)
        job = record(tmp_path)["job_id"]
        slurm.run("scancel", "--batch", "--signal=USR2", job)
        launch.until("attempt 1", 2)
        assert launch.ends() == 0, launch.printed
    assert "warned 0" in launch.printed and "warned 1" in launch.printed
    assert record(tmp_path)["attempts"] == 2


@pytest.mark.thorough  # takes some minutes
@pytest.mark.timeout(500)
def test_slurm_itself_warns_before_the_time_limit(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    words = ("--time", "2m", "--requeue", "--grace", "1", "signalled.py")
    with submitted(slurm, tmp_path, *TWO, *words) as launch:
        launch.until("attempt 1", 2, 400)
        assert launch.ends() == 0, launch.printed
    assert "warned 0" in launch.printed and "warned 1" in launch.printed
    assert record(tmp_path)["attempts"] == 2


def test_detach_leaves_at_once_and_the_others_know_the_job(slurm: Slurm, tmp_path: Path) -> None:
    with submitted(slurm, tmp_path, *TWO, "--detach", "--grace", "2", "train.py", "wait") as launch:
        assert launch.ends() == 0
    run = record(tmp_path)["run_id"]
    assert f"follow it with: distrun logs {run} -f" in launch.printed
    with (tmp_path / "followed").open("wb") as file:
        words = [sys.executable, "-m", "distrun", "logs", "-f", run]
        logs = subprocess.Popen(
            words, cwd=tmp_path, env=slurm.environ(), stdin=subprocess.DEVNULL, stdout=file,
            stderr=file,
        )  # fmt: skip
    followed = tmp_path / "followed"
    wait_until(lambda: followed.read_text().count("begun") == 2, LIMIT_S)
    shown = distrun(slurm, tmp_path, "ps").stdout
    assert "running on n[1-2]" in shown, shown
    assert "job" in distrun(slurm, tmp_path, "show", run).stdout
    stopped = distrun(slurm, tmp_path, "stop", run)
    assert stopped.returncode == 0 and "terminated" in stopped.stderr, stopped.stderr
    assert logs.wait(LIMIT_S) == 0
    assert {"[0·0] begun 0", "[1·1] begun 1"} <= set(followed.read_text().splitlines())
    assert "terminated" in distrun(slurm, tmp_path, "ps").stdout
    nothing_is_left(slurm)


@pytest.mark.thorough  # its parts are in tests/unit/cli
@pytest.mark.parametrize("answer", ["l", "c"])
def test_ctrl_c_on_a_terminal_asks(slurm: Slurm, tmp_path: Path, answer: str) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    words = [sys.executable, "-m", "distrun", "launch", *TWO, "--grace", "1", "train.py", "wait"]
    child, terminal = os.forkpty()
    if child == 0:
        os.chdir(tmp_path)
        os.execve(words[0], words, slurm.environ())
    printed = b""

    def until(word: bytes) -> None:
        nonlocal printed
        while word not in printed:
            printed += os.read(terminal, 4096)

    try:
        until(b"begun")
        os.write(terminal, b"\x03")
        until(b"[L]eave it, [c]ancel it?")
        os.write(terminal, answer.encode() + b"\n")
        until(b"distrun stop" if answer == "l" else b"exit code")
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(terminal)
    if answer == "l":
        assert code == 130 and record(tmp_path)["ended_at"] is None
        assert distrun(slurm, tmp_path, "stop").returncode == 0
    assert record(tmp_path)["outcome"] == "terminated"
    nothing_is_left(slurm)


@pytest.mark.thorough  # as a job, with another name
def test_a_task_of_an_array_is_a_job_of_its_own(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    script = tmp_path / "job.sh"
    line = f"exec {sys.executable} -m distrun launch --nproc-per-node 1 train.py end"
    script.write_text(f"#!/bin/sh\n{line}\n")
    slurm.sbatch(script, "--array=0-1", "--nodes=2", "--exclusive", "--output=job-%a.log")
    runs = tmp_path / "runs"

    def codes() -> list[int | None]:
        return [json.loads(f.read_text())["exit_code"] for f in runs.glob("*/run.json")]

    wait_until(lambda: codes() == [0, 0], LIMIT_S)
