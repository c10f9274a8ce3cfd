"""A log that cannot be written is told once, and never stops a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from distrun.supervise.files import AppendFile


def never(message: str) -> None:
    pytest.fail(message)


def test_what_is_written_is_added_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "node0" / "rank0.log"
    for word in (b"one\n", b"two\n"):
        log = AppendFile(path, never)
        log.write(word)
        log.write_json({"a": "\u00e9"})
        log.close()
    lines = path.read_bytes().splitlines()
    assert lines[::2] == [b"one", b"two"]
    assert [json.loads(line) for line in lines[1::2]] == [{"a": "\u00e9"}] * 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_made_before_something_is_written(tmp_path: Path) -> None:
    log = AppendFile(tmp_path / "a.log", never)
    log.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [10, 0])
def test_a_log_rotates_at_its_size_and_keeps_the_newest(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "rank0.log"
    log = AppendFile(path, never, limit)
    for number in range(5):
        log.write(b"line %d\n" % number)
    log.close()
    if limit:
        assert path.read_bytes() == b"line 4\n"
        assert path.with_name("rank0.log.1").read_bytes() == b"line 3\n"
    else:
        assert path.read_bytes().count(b"\n") == 5
        assert not path.with_name("rank0.log.1").exists()


def test_a_block_above_the_limit_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "rank0.log"
    log = AppendFile(path, never, 10)
    log.write(b"x" * 25)
    assert path.read_bytes() == b"x" * 25
    log.write(b"y")
    assert path.read_bytes() == b"y"
    log.close()


def test_the_size_of_an_old_log_counts(tmp_path: Path) -> None:
    path = tmp_path / "rank0.log"
    path.write_bytes(b"x" * 9)
    log = AppendFile(path, never, 10)
    log.write(b"yy")
    log.close()
    assert path.read_bytes() == b"yy"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_a_full_disk_is_told_once_and_writing_goes_on_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "node0" / "rank0.log"
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/full")
    said: list[str] = []
    log = AppendFile(path, said.append)
    for _ in range(3):
        log.write(b"lost\n")
    assert said == [
        "logs/node0/rank0.log cannot be written: No space left on device;"
        " the run goes on without it"
    ]
    log.close()
    path.unlink()
    log.write(b"kept\n")
    log.close()
    assert path.read_bytes() == b"kept\n"
    assert len(said) == 1


def test_a_directory_in_the_place_of_a_log_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "rank0.log").mkdir()
    said: list[str] = []
    log = AppendFile(tmp_path / "rank0.log", said.append)
    log.write(b"lost\n")
    log.write(b"lost\n")
    assert len(said) == 1
    assert "rank0.log cannot be written: Is a directory" in said[0]
    log.close()
