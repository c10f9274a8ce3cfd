"""A log that cannot be written is told once, and never stops a run."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distrun.runs.files import RunFile
from distrun.supervise.files import AppendFile


def never(message: str) -> None:
    pytest.fail(message)


def test_what_is_written_is_added_to_what_is_there(tmp_path: Path) -> None:
    file = RunFile(tmp_path, ("logs", "node0", "rank0.log"))
    path = file.path
    for word in (b"one\n", b"two\n"):
        log = AppendFile(file, never)
        log.write(word)
        log.write_json({"a": "\u00e9"})
        log.close()
    lines = path.read_bytes().splitlines()
    assert lines[::2] == [b"one", b"two"]
    assert [json.loads(line) for line in lines[1::2]] == [{"a": "\u00e9"}] * 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_made_before_something_is_written(tmp_path: Path) -> None:
    log = AppendFile(RunFile(tmp_path, ("a.log",)), never)
    log.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [10, 0])
def test_a_log_rotates_at_its_size_and_keeps_the_newest(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "rank0.log"
    log = AppendFile(RunFile(tmp_path, (path.name,)), never, limit)
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
    log = AppendFile(RunFile(tmp_path, (path.name,)), never, 10)
    log.write(b"x" * 25)
    assert path.read_bytes() == b"x" * 25
    log.write(b"y")
    assert path.read_bytes() == b"y"
    log.close()


def test_the_size_of_an_old_log_counts(tmp_path: Path) -> None:
    path = tmp_path / "rank0.log"
    path.write_bytes(b"x" * 9)
    log = AppendFile(RunFile(tmp_path, (path.name,)), never, 10)
    log.write(b"yy")
    log.close()
    assert path.read_bytes() == b"yy"


@pytest.fixture
def full_disk() -> Iterator[Callable[[], None]]:
    """A limit of 0 bytes on the size of files, until it is called."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_once_and_writing_goes_on_when_there_is_room(
    tmp_path: Path, full_disk: Callable[[], None]
) -> None:
    file = RunFile(tmp_path, ("logs", "node0", "rank0.log"))
    said: list[str] = []
    log = AppendFile(file, said.append)
    for _ in range(3):
        log.write(b"lost\n")
    full_disk()
    assert said == [
        "logs/node0/rank0.log cannot be written: File too large; the run goes on without it"
    ]
    log.write(b"kept\n")
    log.close()
    assert file.path.read_bytes() == b"kept\n"
    assert len(said) == 1


def test_a_link_in_the_place_of_a_log_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "rank0.log").symlink_to(tmp_path / "prey")
    said: list[str] = []
    log = AppendFile(RunFile(tmp_path, ("rank0.log",)), said.append)
    log.write(b"lost\n")
    assert not (tmp_path / "prey").exists()
    assert "rank0.log cannot be written: it is a symbolic link" in said[0]


def test_a_directory_in_the_place_of_a_log_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "rank0.log").mkdir()
    said: list[str] = []
    log = AppendFile(RunFile(tmp_path, ("rank0.log",)), said.append)
    log.write(b"lost\n")
    log.write(b"lost\n")
    assert len(said) == 1
    assert "rank0.log cannot be written: Is a directory" in said[0]
    log.close()
