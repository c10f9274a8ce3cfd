"""The launch inside a job that was submitted: which run it goes on with, and in what record."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from distrun import env
from distrun.api import in_job
from distrun.api.in_job import refusals_recorded, submitted
from distrun.errors import MachineError, NodesMissing
from distrun.runs import record
from distrun.runs.directory import RunDirectory, create
from distrun.runs.record import RunRecord

BEFORE = RunRecord(
    "r", "train.py", 2, 0, 100.0, ["distrun", "launch"], job_id="12", job={"requeue": True}
)
NOW = RunRecord("r", "train.py", 2, 4, 500.0, ["python", "-m", "distrun"])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run that was submitted as the job around this process."""
    made = create(tmp_path / "runs", "r")
    record.write(made, BEFORE)
    monkeypatch.setenv(env.RUN, str(made.path))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr(in_job, "_JOB_ID_S", 0.1)
    return made


def test_without_a_job_or_a_run_there_is_none(run: RunDirectory) -> None:
    assert submitted({}) is None
    assert submitted({env.RUN: str(run.path)}) is None
    assert submitted({"SLURM_JOB_ID": "12"}) is None


def test_a_run_of_another_job_is_none_of_ours(run: RunDirectory) -> None:
    assert submitted({env.RUN: str(run.path), "SLURM_JOB_ID": "13"}) is None


def test_the_first_attempt_has_the_command_of_the_submission(run: RunDirectory) -> None:
    found = submitted()
    assert found is not None and found.run.path == run.path and found.requeues
    expected = replace(NOW, command=BEFORE.command, job=BEFORE.job, job_id="12")
    assert found.record_of(NOW) == expected


def test_a_later_attempt_counts_on_and_has_no_end(run: RunDirectory) -> None:
    ended = record.ended(replace(BEFORE, supervisor_pid=7), "terminated", 143, 2, summary="",
                         hint="")  # fmt: skip
    record.write(run, ended)
    found = submitted()
    assert found is not None
    now = found.record_of(NOW)
    assert (now.attempts, now.started_at, now.ended_at, now.outcome) == (3, 100.0, None, "")


def test_a_submission_that_died_before_it_knew_the_job_is_gone_on_with(run: RunDirectory) -> None:
    record.write(run, replace(BEFORE, job_id=""))
    found = submitted()
    assert found is not None and found.record_of(NOW).job_id == "12"


@pytest.mark.parametrize("spoil", ["gone", "no record", "a link", "not JSON"])
def test_a_directory_that_the_node_does_not_see_is_an_error(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    if spoil == "gone":
        monkeypatch.setenv(env.RUN, str(tmp_path / "none"))
    elif spoil == "no record":
        (run.path / "run.json").unlink()
    elif spoil == "a link":
        (tmp_path / "link").symlink_to(run.path)
        monkeypatch.setenv(env.RUN, str(tmp_path / "link"))
    else:
        (run.path / "run.json").write_text("{")
    with pytest.raises(MachineError, match="cannot be used on"):
        submitted()


def test_an_error_before_the_start_is_recorded(run: RunDirectory) -> None:
    with pytest.raises(NodesMissing), refusals_recorded():
        raise NodesMissing("n2 is not reached", "look")
    found = record.read(run)
    assert (found.outcome, found.exit_code) == ("nodes missing", 4)
    assert (found.summary, found.hint) == ("n2 is not reached", "look")


def test_a_requeue_without_scontrol_is_a_line(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = submitted()
    assert found is not None
    said = in_job.ask_for_requeue(found, warned=True)
    assert said.startswith("job 12 is not put back in the queue: --on slurm needs scontrol")
    kept = replace(found, before=replace(found.before, job={"requeue": False}))
    assert in_job.ask_for_requeue(kept, warned=True) == ""


@pytest.mark.parametrize(("preempted", "asked"), [("1795908936", True), ("None", False)])
def test_a_failure_is_requeued_only_if_slurm_preempts_the_job(
    run: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    preempted: str,
    asked: bool,
) -> None:
    golden = Path(__file__).parents[2] / "golden" / "slurm" / "preempted.txt"
    text = golden.read_text().replace("PreemptTime=1795908936", f"PreemptTime={preempted}")
    (tmp_path / "job.txt").write_text(text)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        f"#!/bin/sh\necho $1 >> {tmp_path}/asked\n[ $1 = show ] && cat {tmp_path}/job.txt || true\n"
    )
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    record.write(run, record.ended(BEFORE, "failed", 1, 1, summary="", hint=""))
    found = submitted()
    assert found is not None
    assert bool(in_job.ask_for_requeue(found, warned=False)) is asked
    assert ("requeue" in (tmp_path / "asked").read_text()) is asked
    assert (record.read(run).ended_at is None) is asked


@pytest.mark.parametrize(
    ("noted", "excluded"),
    [
        ([{"host": "n7", "kind": "gpu"}, {"host": "n3", "kind": "bad-node"}], "n3,n7"),
        ([{"host": "n7", "kind": "gpu"}, {"host": "n7", "kind": "node"}], "n7"),
        ([{"host": "n7", "kind": "node"}], ""),
        ([{"host": "n7", "kind": "hang", "check": {"failed": ["gpu.ecc: 3"], "warned": []}}], "n7"),
        ([{"host": "n7", "kind": "hang", "check": {"failed": [], "warned": ["x"]}}], ""),
        ([{"host": "n7", "kind": "hang", "check": ["failed"]}], ""),
        ([{"host": "n7; rm -r x", "kind": "gpu"}, "n8"], ""),
        ({"host": "n7"}, ""),
    ],
)
def test_a_requeued_job_stays_away_from_nodes_that_have_proved_bad(
    run: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    noted: object,
    excluded: str,
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    run.nodes.replace_text(json.dumps(noted))
    found = submitted()
    assert found is not None
    said = in_job.ask_for_requeue(found, warned=True)
    asked = (tmp_path / "asked").read_text()
    assert ("ExcNodeList" in asked) is bool(excluded)
    assert f"JobId=12 ExcNodeList={excluded}\n" in asked or not excluded
    assert said.endswith(f", without {excluded.replace(',', ', ')}" if excluded else "queue")
