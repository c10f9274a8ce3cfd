"""The supervisor starts the report as its last act, and waits for it in a job of Slurm alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrun.runs.directory import RunDirectory
from distrun.runs.files import open_directory
from distrun.supervise.last_act import write_report
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
