"""Which runs there are, which is meant, and whether one still runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from distrun.errors import UsageError
from distrun.processes import start_time
from distrun.runs import directory, record
from distrun.runs.listing import find, list_runs
from distrun.runs.place import here
from distrun.runs.record import RunRecord
from tests.conftest import wait_until

Make = Callable[..., None]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Record a run that was started here."""

    def make(run_id: str, started_at: float = 1.0, **fields: Any) -> None:
        found = RunRecord(run_id, "t.py", 1, 1, started_at, **{**asdict(here()), **fields})
        record.write(directory.create(tmp_path, run_id), found)

    return make


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A living process with the command line of the supervisor of run "r1"."""
    program = tmp_path / "bin" / "supervise" / "__main__.py"
    program.parent.mkdir(parents=True)
    program.write_text("import time; time.sleep(300)")
    child = subprocess.Popen([sys.executable, "-S", program, "r1"])
    wait_until(lambda: b"supervise" in Path(f"/proc/{child.pid}/cmdline").read_bytes())
    yield child
    child.kill()
    child.wait()


def states(runs_dir: Path) -> dict[str, str]:
    return {run.run_id: found.state for run, found in list_runs(runs_dir)}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_run_is_lost_when_its_supervisor_is_gone_even_if_another_has_its_pid(
    tmp_path: Path, make: Make, supervisor: subprocess.Popen[bytes]
) -> None:
    pid, start = supervisor.pid, start_time(supervisor.pid)
    make("r1", supervisor_pid=pid, supervisor_start=start)
    assert states(tmp_path)["r1"] == "running"
    # A later boot of the clock: the same number, and even the same words, of another process.
    for name, reused in (("start", str(int(start) - 100)), ("none", "")):
        runs_dir = tmp_path / name
        found = RunRecord("r1", "t.py", 1, 1, 1.0, supervisor_pid=pid, supervisor_start=reused)
        found = RunRecord(**{**asdict(found), **asdict(here())})
        record.write(directory.create(runs_dir, "r1"), found)
        assert states(runs_dir) == {"r1": "lost"}, reused
    make("r2", supervisor_pid=pid, supervisor_start=start)
    assert states(tmp_path)["r2"] == "lost", "it supervises another run"
    supervisor.kill()
    supervisor.wait()
    assert states(tmp_path)["r1"] == "lost"


def test_an_ended_run_is_neither_running_nor_lost(tmp_path: Path, make: Make) -> None:
    make("r1", ended_at=2.0)
    ((_, found),) = list_runs(tmp_path)
    assert found.state == "ended" and found.is_over


def test_the_newest_comes_first_whatever_its_name(tmp_path: Path, make: Make) -> None:
    for run_id, started_at in (("b", 2.0), ("a", 3.0), ("c", 1.0)):
        make(run_id, started_at)
    assert [run.run_id for run, _ in list_runs(tmp_path)] == ["a", "b", "c"]
    assert find(tmp_path, "latest")[0].run_id == "a"


def test_what_cannot_be_read_is_told_and_hides_no_run(tmp_path: Path, make: Make) -> None:
    make("good")
    make("broken")
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "being made").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "good")
    (tmp_path / "a file").write_text("")
    said: list[str] = []
    assert [run.run_id for run, _ in list_runs(tmp_path, said.append)] == ["good"]
    assert len(said) == 2
    assert "link is not read: it is a symbolic link" in said[0]
    assert "broken/run.json is not read: " in said[1]


def test_no_directory_has_no_runs_and_a_file_is_refused(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "nowhere") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file' cannot be read: Not a directory"):
        list_runs(tmp_path / "file")
    with pytest.raises(UsageError, match="no run is recorded in"):
        find(tmp_path, "latest")


@pytest.mark.parametrize(
    ("word", "found"),
    [("latest", "ddp-2"), ("ddp-1", "ddp-1"), ("fsdp", "fsdp-1"), ("ddp-2", "ddp-2")],
)
def test_a_word_means_one_run(tmp_path: Path, make: Make, word: str, found: str) -> None:
    for at, run_id in enumerate(("ddp-1", "ddp-12", "fsdp-1", "ddp-2")):
        make(run_id, float(at))
    assert find(tmp_path, word)[0].run_id == found
    assert find(Path("/nowhere"), str(tmp_path / found))[0].run_id == found


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("ddp-1", None),
        ("dp", "'dp' matches 3 runs"),
        ("", "no run has the name ''"),
        ("dpd-1", "no run has the name 'dpd-1'"),
    ],
)
def test_a_word_that_means_no_run_or_many_is_refused(
    tmp_path: Path, make: Make, word: str, said: str | None
) -> None:
    for run_id in ("ddp-1", "ddp-12", "fsdp-1"):
        make(run_id)
    if said is None:
        assert find(tmp_path, word)[0].run_id == word, "the exact name is meant"
        return
    with pytest.raises(UsageError) as refused:
        find(tmp_path, word)
    assert said in refused.value.message
    assert "ddp-1" in refused.value.hint
