"""Files of a run are opened from its directory's descriptor, through no link."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distrun.runs import directory
from distrun.runs.directory import RunDirectory
from distrun.runs.files import RunFile

APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def write(file: RunFile, data: bytes) -> None:
    with open(file.open(APPEND, make_parents=True), "wb") as opened:
        opened.write(data)


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_whatever_the_umask_nobody_else_may_write_where_runs_are_recorded(
    tmp_path: Path, umask: Callable[[int], int], mask: int
) -> None:
    umask(mask)
    run = directory.create(tmp_path / "a" / "runs", "r1")
    write(run.log(0, 0), b"x")
    for place in (tmp_path / "a", tmp_path / "a" / "runs"):
        assert place.stat().st_mode & 0o022 == 0
    assert run.path.stat().st_mode & 0o777 == 0o700
    assert run.log(0, 0).path.stat().st_mode & 0o777 == 0o600


def test_a_run_goes_on_writing_into_its_own_directory_when_another_takes_the_name(
    tmp_path: Path,
) -> None:
    run = directory.create(tmp_path / "runs", "r1")
    moved, prey = tmp_path / "moved", tmp_path / "prey"
    prey.mkdir()
    run.path.rename(moved)
    run.path.symlink_to(prey)
    write(run.events, b"{}\n")
    write(run.log(0, 0), b"printed\n")
    run.record.replace_text("{}")
    assert (moved / "logs" / "node0" / "rank0.log").read_bytes() == b"printed\n"
    assert {p.name for p in moved.iterdir()} >= {"events.jsonl", "run.json"}
    assert list(prey.iterdir()) == []


@pytest.mark.parametrize("link", ["logs", "logs/node0", "logs/node0/rank0.log"])
def test_no_link_below_the_run_directory_is_followed(tmp_path: Path, link: str) -> None:
    run = directory.create(tmp_path / "runs", "r1")
    prey = tmp_path / "prey"
    (prey / "node0").mkdir(parents=True)
    (prey / "rank0.log").write_bytes(b"secret")
    (prey / "node0" / "rank0.log").write_bytes(b"secret")
    place = run.path / link
    if place.exists():
        place.rmdir()
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(prey / "rank0.log" if link.endswith(".log") else prey)
    log = run.log(0, 0)
    for act in (
        lambda: log.open(APPEND, make_parents=True),
        lambda: log.open(os.O_RDONLY),
        lambda: log.read(100),
    ):
        with pytest.raises(OSError, match=r"it is a symbolic link|Not a directory"):
            act()
    assert (prey / "rank0.log").read_bytes() == b"secret"


def test_a_text_takes_the_place_of_a_link_and_its_draft_is_written_through_none(
    tmp_path: Path,
) -> None:
    run = directory.create(tmp_path / "runs", "r1")
    prey = tmp_path / "prey"
    prey.write_text("keep")
    run.verdict.path.symlink_to(prey)
    run.verdict.replace_text("new")
    assert (run.path / "verdict.json").read_text() == "new"
    (run.path / f".verdict.json.{os.getpid()}").symlink_to(prey)
    with pytest.raises(OSError, match="symbolic link"):
        run.verdict.replace_text("newer")
    run.verdict.replace_text("newest")
    assert (run.path / "verdict.json").read_text() == "newest"
    assert prey.read_text() == "keep"


def test_a_fifo_a_directory_and_a_file_above_the_limit_are_refused_at_once(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    os.mkfifo(run.record.path)
    run.verdict.path.mkdir()
    run.events.path.write_bytes(b"x" * 11)
    for file, why in (
        (run.record, "not a regular"),
        (run.verdict, "not a regular"),
        (run.events, "MiB"),
    ):
        with pytest.raises(OSError, match=why):
            file.read(10)
    assert run.events.read(11) == b"x" * 11


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
@pytest.mark.parametrize("foreign", [".", "run.json"])
def test_what_another_user_owns_is_not_read(tmp_path: Path, foreign: str) -> None:
    run = RunDirectory(tmp_path / "r1")
    run.path.mkdir()
    run.record.path.write_text("{}")
    assert run.record.read(10) == b"{}"
    os.chown(run.path / foreign, 65534, 65534)
    with pytest.raises(OSError, match=r"it belongs to another user \(uid 65534\)"):
        run.record.read(10)


def test_a_rank_that_is_no_number_names_no_file(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for wrong in ("../../x", "0", None, 1.5):
        with pytest.raises((ValueError, TypeError)):
            run.log(0, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("nbytes", "fits"), [(0, True), (10, True), (11, False)])
def test_a_file_is_read_up_to_its_limit_and_not_beyond(
    tmp_path: Path, nbytes: int, fits: bool
) -> None:
    file = RunFile(tmp_path, ("verdict.json",))
    file.path.write_bytes(b"x" * nbytes)
    if fits:
        assert file.read(10) == b"x" * nbytes
        return
    with pytest.raises(OSError, match="it is larger than 0 MiB"):
        file.read(10)
