"""A run that was submitted to Slurm: what is told of its job, and how its end is recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from distrun.api.slurm_jobs import ended_event, may_go_on, sentence, settled
from distrun.runs import record
from distrun.runs.directory import RunDirectory, create
from distrun.runs.record import RunRecord
from distrun.schedulers.slurm_commands import JobStatus

RECORD = RunRecord("r", "train.py", 2, 0, 100.0, job_id="12", job={"requeue": True, "warn_s": 90})


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    made = create(tmp_path / "runs", "r")
    record.write(made, RECORD)
    return made


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (JobStatus("PENDING", "Resources"), "job 12: PENDING (Resources): it waits for enough"),
        (JobStatus("PENDING"), "job 12: PENDING (None): Slurm has not looked at it yet"),
        (JobStatus("PENDING", "Weird"), "job 12: PENDING (Weird): Weird"),
        (JobStatus("RUNNING", nodes="n[1-2]"), "job 12: RUNNING on n[1-2]"),
        (JobStatus("COMPLETING", nodes="n1"), "job 12: COMPLETING: it ends: some of its"),
    ],
)
def test_what_is_told_of_a_job(status: JobStatus, words: str) -> None:
    assert sentence("12", status).startswith(words)


def test_an_estimate_is_a_time_of_day_or_a_date() -> None:
    waiting = JobStatus("PENDING", "Priority", 1795909561.0)
    assert "; Slurm expects it to start at " in sentence("12", waiting)
    assert sentence("12", waiting).splitlines()[1] == "`sprio -j 12` shows its priority"


@pytest.mark.parametrize(
    ("status", "outcome", "code"),
    [
        (JobStatus("CANCELLED"), "cancelled", 143),
        (JobStatus("NODE_FAIL", "NodeDown", exit_code=137), "node lost", 5),
        (JobStatus("TIMEOUT"), "time limit", 124),
        (JobStatus("OUT_OF_MEMORY"), "out of memory", 137),
        (JobStatus("BOOT_FAIL"), "nodes missing", 4),
        (JobStatus("FAILED", exit_code=3), "failed", 3),
        (JobStatus("COMPLETED"), "supervisor lost", 70),
        (None, "job lost", 5),
    ],
)
def test_a_job_that_ended_without_a_record_is_recorded(
    run: RunDirectory, status: JobStatus | None, outcome: str, code: int
) -> None:
    found = settled(run, RECORD, status)
    assert (found.outcome, found.exit_code, found.state) == (outcome, code, "ended")
    assert record.read(run) == found
    event = ended_event(run, None)
    assert (event["event"], event["outcome"], event["exit_code"]) == ("ended", outcome, code)


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "A_NEW_STATE"])
def test_a_job_that_goes_on_is_left_alone(run: RunDirectory, state: str) -> None:
    assert settled(run, RECORD, JobStatus(state)) == RECORD


def test_the_record_of_the_launch_itself_counts(run: RunDirectory) -> None:
    own = record.ended(RECORD, "failed", 7, 1, summary="rank 0 failed", hint="")
    record.write(run, own)
    assert settled(run, RECORD, JobStatus("CANCELLED")) == own


@pytest.mark.parametrize(
    ("exit_code", "requeue", "goes_on"),
    [(None, False, True), (143, True, True), (143, False, False), (1, True, False),
     (0, True, False)],
)  # fmt: skip
def test_only_a_run_that_was_terminated_may_come_back(
    exit_code: int | None, requeue: bool, goes_on: bool
) -> None:
    ended_at = None if exit_code is None else 200.0
    found = replace(RECORD, ended_at=ended_at, exit_code=exit_code, job={"requeue": requeue})
    assert may_go_on(found) is goes_on


def test_a_submitted_run_is_neither_lost_nor_over() -> None:
    assert (RECORD.state, RECORD.is_over) == ("submitted", False)
