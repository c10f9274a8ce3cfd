"""What Slurm's commands print is read: recorded output of Slurm 22.05.

In tests/golden/slurm is what `scontrol show job` printed; of some records the times were converted
to the format that distrun asks for.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from distrun.errors import MachineError, UsageError
from distrun.schedulers.slurm_commands import JobStatus, read_accounting, read_job

RECORDED = Path(__file__).parents[2] / "golden" / "slurm"


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text(encoding="utf-8")


READ = {
    "pending_resources": JobStatus("PENDING", "Resources", 1795909561.0),
    "pending_begin": JobStatus("PENDING", "BeginTime", 1795912860.0),
    "dependency": JobStatus("PENDING", "Dependency"),
    "held": JobStatus("PENDING", "JobHeldUser"),
    "running_named_as_a_field": JobStatus("RUNNING", "", 1795909261.0, "n[1-2]"),
    "completing": JobStatus("COMPLETING", "", 1795908811.0, "n[1-2]"),
    "completed": JobStatus("COMPLETED", "", 1795908808.0, "n1"),
    "failed_7": JobStatus("FAILED", "NonZeroExitCode", 1795909272.0, "n1", 7),
    "killed_9": JobStatus("FAILED", "JobLaunchFailure", 1795908808.0, "n2", 137),
    "stopped_143": JobStatus("FAILED", "NonZeroExitCode", 1795909261.0, "n[1-2]", 143),
    "cancelled": JobStatus("CANCELLED", "", 1795908811.0, "n[1-2]", 137),
    "cancelled_pending": JobStatus("CANCELLED", "BeginTime", 1795909368.0),
    "node_fail": JobStatus("NODE_FAIL", "NodeDown", 1795908965.0, "n[1-2]", 137),
    "preempted": JobStatus("PREEMPTED", "", 1795908933.0, "n[1-2]", 137, preempted=True),
    "requeued_completing": JobStatus("COMPLETING", "", 1795908906.0, "n[1-2]", restarts=1),
    "requeued_pending": JobStatus("PENDING", "BeginTime", 1795909038.0, restarts=1),
}


@pytest.mark.parametrize("name", READ)
def test_a_recorded_job_is_read(name: str) -> None:
    text = recorded(name)
    assert read_job(text, text.split()[0].removeprefix("JobId=")) == READ[name]


def test_every_record_is_read() -> None:
    assert {file.stem for file in RECORDED.iterdir()} == {*READ, "array"}


def test_a_newer_slurm_names_the_failed_node_between_the_fields() -> None:
    text = recorded("node_fail").replace(" Dependency=", " FailedNode=n2 Dependency=")
    assert read_job(text, "44") == READ["node_fail"]


def test_an_estimate_of_two_thousand_years_is_none() -> None:
    text = recorded("pending_resources").replace("StartTime=1795909561", "StartTime=66222060121")
    assert read_job(text, "71").start_estimate is None


def test_a_node_list_that_is_not_assigned_is_none() -> None:
    for none in ("(null)", "None"):
        text = recorded("held").replace("   NodeList=", f"   NodeList={none}")
        assert read_job(text, "76").nodes == ""


def test_an_array_is_no_run() -> None:
    with pytest.raises(UsageError, match="72 is an array") as caught:
        read_job(recorded("array"), "72")
    assert "scancel 72" in caught.value.hint


@pytest.mark.parametrize("text", ["", "JobId=5 JobName=JobState=RUNNING Reason=None", "banner\n"])
def test_text_that_is_no_job_is_an_error_that_shows_it(text: str) -> None:
    with pytest.raises(MachineError, match="no JobState"):
        read_job(text, "5")


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("COMPLETED|0:0|1795908808|n1\n", JobStatus("COMPLETED", "", 1795908808.0, "n1")),
        ("FAILED|7:0|1795908808|n1", JobStatus("FAILED", "", 1795908808.0, "n1", 7)),
        ("CANCELLED by 1000|0:15|Unknown|None assigned\n", JobStatus("CANCELLED", exit_code=143)),
        ("PENDING|0:0|Unknown|None assigned", JobStatus("PENDING")),
        ("OUT_OF_MEMORY|0:125|None|n1", JobStatus("OUT_OF_MEMORY", nodes="n1", exit_code=253)),
        ("", None),
        ("\n", None),
        ("Slurm is being upgraded", None),
        ("COMPLETED|?|?|", JobStatus("COMPLETED")),
    ],
)
def test_a_line_of_accounting_is_read(line: str, read: JobStatus | None) -> None:
    assert read_accounting(line) == read
