"""Variables that are the defaults of settings: below a config file, a flag and an argument."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrun.errors import UsageError
from distrun.spec import read
from distrun.spec.job import Job


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("print('train')\n")
    return tmp_path


def test_an_image_says_by_a_variable_how_long_the_grace_is(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTRUN_GRACE", "8s")
    job, sources, _ = read.job({"script": "train.py"})
    assert (job.grace, sources["grace"]) == (8.0, "variable DISTRUN_GRACE")
    job, sources, _ = read.with_header(Job(script="train.py"))
    assert (job.grace, sources["grace"]) == (8.0, "variable DISTRUN_GRACE")
    assert read.settings({}).grace == 8.0


def test_a_config_file_a_flag_and_an_argument_win_over_the_variable(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTRUN_GRACE", "8s")
    config = here / "c.toml"
    config.write_text('[tool.distrun]\ngrace = "1m"\n')
    assert read.job({"script": "train.py"}, config)[0].grace == 60.0
    assert read.job({"script": "train.py", "grace": "5s"}, config)[0].grace == 5.0
    assert read.with_header(Job(script="train.py", grace=4))[0].grace == 4.0


@pytest.mark.parametrize("value", ["soon", "-1", "1e400", "8s; rm -rf /"])
def test_a_variable_that_is_no_time_is_refused_by_its_name(
    here: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("DISTRUN_GRACE", value)
    with pytest.raises(UsageError, match="variable DISTRUN_GRACE") as refused:
        read.job({"script": "train.py"})
    assert "90s" in refused.value.hint


def test_a_variable_that_is_empty_is_not_set(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTRUN_GRACE", " ")
    assert read.job({"script": "train.py"})[1] == {"script": "flag"}
