"""The launch in a job that was submitted, without Slurm: one record, several attempts, warnings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distrun import env
from distrun.runs import record
from distrun.runs.directory import RunDirectory, create
from distrun.runs.record import RunRecord
from tests.conftest import wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]
SUBMITTED = RunRecord("r", "s.py", 1, 0, 100.0, ["distrun", "launch", "--on", "slurm"], job_id="12")
SCRIPT = """
import os, signal, sys, time
signal.signal(signal.SIGUSR2, lambda *_: print("warned", flush=True))
print("attempt", os.environ["TORCHELASTIC_RESTART_COUNT"], "DISTRUN_RUN" in os.environ, flush=True)
while "wait" in sys.argv:
    time.sleep(0.05)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    (tmp_path / "s.py").write_text(SCRIPT)
    made = create(tmp_path / "runs", "r")
    record.write(made, RunRecord(**{**vars(SUBMITTED), "job": {"requeue": True, "warn_s": 3}}))
    return made


def in_job(run: RunDirectory) -> dict[str, str]:
    return {**os.environ, env.RUN: str(run.path), "SLURM_JOB_ID": "12", "PATH": ""}


def events(run: RunDirectory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]


@pytest.mark.timeout(90)
def test_two_launches_of_one_job_are_two_attempts_of_one_run(
    distrun: Run, tmp_path: Path, run: RunDirectory
) -> None:
    for attempt in (1, 2):
        words = ("launch", "--nproc-per-node", "1", "s.py")
        done = distrun(*words, env=in_job(run))
        assert done.returncode == 0, done.stderr
        found = record.read(run)
        assert (found.attempts, found.job_id, found.outcome) == (attempt, "12", "succeeded")
        assert found.command == SUBMITTED.command
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["r"]
    assert run.log(0, 0).read(10_000).decode().splitlines() == [
        "attempt 0 False",
        "--- distrun: attempt 2 begins ---",
        "attempt 1 False",
    ]
    begun = [event["attempt"] for event in events(run) if event["event"] == "attempt_started"]
    assert begun == [0, 1]


@pytest.mark.timeout(90)
def test_a_warning_ends_the_ranks_with_143_and_asks_for_the_requeue(
    tmp_path: Path, run: RunDirectory, command: list[str]
) -> None:
    words = [*command, "launch", "--nproc-per-node", "1", "s.py", "wait"]
    with (tmp_path / "said").open("wb") as said:
        child = subprocess.Popen(
            words, cwd=tmp_path, env=in_job(run), stdin=subprocess.DEVNULL, stdout=said,
            stderr=said,
        )  # fmt: skip
    printed = tmp_path / "said"
    wait_until(lambda: "attempt 0" in printed.read_text(), 40)
    child.send_signal(signal.SIGUSR2)
    assert child.wait(40) == 143
    text = printed.read_text()
    assert "warned" in text and "Slurm's warning that the job's time limit is near" in text
    assert "job 12 is not put back in the queue: --on slurm needs scontrol" in text
    assert record.read(run).outcome == "terminated"


def test_an_error_before_the_start_is_in_the_record(distrun: Run, run: RunDirectory) -> None:
    done = distrun("launch", "--gpus", "7", "s.py", env=in_job(run))
    assert done.returncode == 3, done.stderr
    found = record.read(run)
    assert (found.outcome, found.exit_code) == ("not started", 3) and "GPU" in found.summary
