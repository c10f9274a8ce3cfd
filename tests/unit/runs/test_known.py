"""The list of runs directories: short, this user's alone, and never a reason not to train."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from distrun.runs import known


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$XDG_STATE_HOME, which is not there yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "my state"))
    return tmp_path / "my state"


def directory(place: Path) -> Path:
    place.mkdir()
    return place


def test_a_directory_is_listed_once_and_only_while_it_is_there(state: Path, tmp_path: Path) -> None:
    assert known.runs_dirs() == []
    first, second = directory(tmp_path / "a\nb"), directory(tmp_path / "ü 2")
    for place in (first, second, first, tmp_path / "gone"):
        known.add(place)
    assert known.runs_dirs() == [first, second]
    file = state / "distrun" / "runs-dirs"
    assert len(file.read_text().splitlines()) == 3
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_link_is_named_by_the_directory_that_it_leads_to(state: Path, tmp_path: Path) -> None:
    real, link = directory(tmp_path / "real"), tmp_path / "link"
    link.symlink_to(real)
    known.add(link)
    known.add(real)
    assert known.runs_dirs() == [real]


def test_what_is_gone_is_taken_out_when_the_list_is_long(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "_MOST", 5)
    there = [directory(tmp_path / str(number)) for number in range(3)]
    for number in range(4):
        known.add(tmp_path / f"gone {number}")
    for place in there:
        known.add(place)
    assert known.runs_dirs() == there
    assert "/gone " not in (state / "distrun" / "runs-dirs").read_text()


def test_a_list_by_somebody_else_is_read_as_far_as_it_makes_sense(
    state: Path, tmp_path: Path
) -> None:
    good = directory(tmp_path / "good")
    (state / "distrun").mkdir(parents=True)
    lines = ["", "{", "5", '"relative"', '"/\\u0000"', json.dumps(str(good)), "[" * 9000]
    (state / "distrun" / "runs-dirs").write_bytes("\n".join(lines).encode() + b"\n\xff\n")
    assert known.runs_dirs() == [good]


def test_no_link_is_followed_and_no_launch_fails_for_it(state: Path, tmp_path: Path) -> None:
    runs, victim = directory(tmp_path / "runs"), tmp_path / "victim"
    victim.write_text(json.dumps(str(runs)) + "\n")
    (state / "distrun").mkdir(parents=True)
    link = state / "distrun" / "runs-dirs"
    link.symlink_to(victim)
    known.add(tmp_path)
    assert known.runs_dirs() == []
    assert victim.read_text() == json.dumps(str(runs)) + "\n"
    link.unlink()
    link.mkdir()
    known.add(runs)  # neither does a directory in its place
    os.mkfifo(state / "fifo")
    link.rmdir()
    (state / "fifo").rename(link)
    known.add(runs)  # nor a pipe, which would keep a reader for ever
    assert known.runs_dirs() == []


def test_without_a_home_nothing_is_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", "/dev/null/home")
    known.add(tmp_path)
    assert known.runs_dirs() == []


def test_launches_at_once_lose_no_line(state: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from distrun.runs import known\n"
        "for number in range(25): known.add(Path(sys.argv[1], sys.argv[2] + str(number)))"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in "abcd"
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    lines = (state / "distrun" / "runs-dirs").read_text().splitlines()
    expected = {str(tmp_path / f"{name}{number}") for name in "abcd" for number in range(25)}
    assert {json.loads(line) for line in lines} == expected
    assert len(lines) == 100
