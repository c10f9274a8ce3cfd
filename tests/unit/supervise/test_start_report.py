"""The report is started at the end of a run, and waited for only where it would be killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrun.runs.directory import RunDirectory
from distrun.runs.files import open_directory
from distrun.supervise.start_report import is_in_container, write_report
from tests.unit.report.made import made_run


def held(tmp_path: Path) -> RunDirectory:
    path = made_run(tmp_path).path
    return RunDirectory(path, open_directory(path))


def test_in_a_job_of_slurm_it_is_there_when_the_supervisor_ends(tmp_path: Path) -> None:
    run = held(tmp_path)
    write_report(run, {"SLURM_JOB_ID": "7"})
    assert "every rank ended with 0" in (run.path / "report.html").read_text()


@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_that_cannot_have_one_goes_on(tmp_path: Path, recorded: bool) -> None:
    run = held(tmp_path)
    if recorded:  # the record is elsewhere
        write_report(run, {"DISTRUN_RECORDED_ELSEWHERE": "1", "SLURM_JOB_ID": "7"})
    else:
        (run.path / "run.json").unlink()
        write_report(run, {"SLURM_JOB_ID": "7"})
    assert not (run.path / "report.html").exists()


@pytest.mark.parametrize(
    ("namespace", "inside"),
    [("pid:[4026531836]", False), ("pid:[4026532449]", True), (None, False)],
)
def test_a_container_is_known_by_its_namespace_of_pids(
    tmp_path: Path, namespace: str | None, inside: bool
) -> None:
    (tmp_path / "ns").mkdir()
    if namespace:
        (tmp_path / "ns" / "pid").symlink_to(namespace)
    assert is_in_container(tmp_path) is inside
