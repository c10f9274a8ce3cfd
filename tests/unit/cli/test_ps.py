"""`ps` and `show` of recorded runs: whole at 80 columns, over directories, for programs."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distrun.cli.app import app
from distrun.cli.screen.width import width
from distrun.errors import UsageError
from distrun.runs import known
from tests.unit.cli.commands import printed

SHORT = "20261121-002312-ddp-af7f"
LONG = "20261121-002313-a_training_script_with_a_very_long_name-0c1d"
ELSEWHERE = "20261121-002314-train-0001"
Show = Callable[..., str]


def recorded(runs_dir: Path, run_id: str, **fields: Any) -> None:
    record = {
        "run_id": run_id,
        "recipe": "train.py",
        "nnodes": 16,
        "nproc_per_node": 8,
        "started_at": 1.7e9 + int(run_id[14]),
        "ended_at": 1.7e9 + 7000.0,
        "exit_code": 143,
        "outcome": "terminated",
        "summary": "stopped by SIGTERM, " * 9,
    }
    (runs_dir / run_id).mkdir(parents=True)
    (runs_dir / run_id / "run.json").write_text(json.dumps(record | fields))


@pytest.fixture
def show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Show:
    """Return what a command prints on a terminal of 80 columns, without colours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes that for a terminal
    monkeypatch.setenv("COLUMNS", "80")
    recorded(tmp_path / "runs", SHORT)
    recorded(tmp_path / "runs", LONG, recipe="experiments/a_training_script.py")
    recorded(tmp_path / "elsewhere" / "my runs", ELSEWHERE, outcome="succeeded", exit_code=0)
    known.add(tmp_path / "elsewhere" / "my runs")
    return lambda *words: re.sub(r"\x1b\[[0-9;]*m", "", printed(app, list(words), capsys))


def test_the_list_is_whole_on_80_columns(show: Show) -> None:
    head, *lines = show("ps").splitlines()
    assert head.split() == ["run", "state", "code", "ranks", "time"]  # the name has the start
    assert lines[0].startswith("20261121-002313-")
    assert "…" in lines[0] and lines[0].split()[0].endswith("-0c1d")
    assert lines[1].startswith(SHORT)
    for line in lines:
        assert line.split()[1:4] == ["terminated", "143", "16×8"]
        assert line.rstrip().endswith(("1:56:37", "1:56:38"))
        assert width(line) <= 80


def test_on_a_wide_terminal_nothing_is_left_out(
    show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = show("ps")
    assert LONG in shown and "experiments/a_training_script.py" in shown and "…" not in shown


def test_all_directories_that_a_launch_has_used_are_shown(show: Show, tmp_path: Path) -> None:
    assert ELSEWHERE not in show("ps")
    lines = show("ps", "--all").splitlines()
    assert lines[0] == f"{tmp_path}/elsewhere/my runs:"  # with the newest run
    assert lines[2].startswith(f"{ELSEWHERE}  succeeded")
    assert lines[4] == "runs:"
    assert lines[7].startswith(SHORT)
    rows = json.loads(show("ps", "-a", "--json"))
    assert [row["run_id"] for row in rows] == [ELSEWHERE, LONG, SHORT]
    assert {row["runs_dir"] for row in rows[1:]} == {str(tmp_path / "runs")}
    assert show("ps", "--all", "--running") == ""


def test_a_directory_that_cannot_be_read_hides_no_other(show: Show, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    assert ELSEWHERE in show("ps", "--all", "--runs-dir", "a file")
    with pytest.raises(UsageError, match="'a file' cannot be read"):
        show("ps", "--runs-dir", "a file")


def test_all_of_them_are_not_pruned_at_once(show: Show) -> None:
    with pytest.raises(UsageError, match="--all and --prune exclude each other"):
        show("ps", "--all", "--prune", "0")
    assert ELSEWHERE in show("ps", "--all")


def test_files_have_what_is_shown(show: Show, tmp_path: Path) -> None:
    show("ps", "-o", "a.json", "--output", "b.csv")
    rows = json.loads((tmp_path / "a.json").read_text())
    assert rows == json.loads(show("ps", "--json"))
    with open(tmp_path / "b.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["run_id"] for line in lines] == [row["run_id"] for row in rows] == [LONG, SHORT]
    assert lines[0]["exit_code"] == "143"
    show("show", "af7f", "-o", "one.json")
    assert json.loads((tmp_path / "one.json").read_text()) == json.loads(
        show("show", "af7f", "--json")
    )
    for words in (("ps", "-o", "a.xml"), ("show", "-o", "a.csv")):
        with pytest.raises(UsageError, match="the ending names the format"):
            show(*words)
