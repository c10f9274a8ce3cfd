"""A rank's log holds what it printed in order, and a reader learns which stream it was of."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distrun.cli.screen.tail import LogTail
from distrun.runs.directory import RunDirectory
from distrun.supervise import rank_log
from distrun.supervise.rank_log import RankLog


@contextmanager
def log_in(directory: Path, max_nbytes: int = 0) -> Iterator[tuple[RankLog, LogTail]]:
    run = RunDirectory(directory)
    log = RankLog(run.log(0, 3), run.streams(0, 3), pytest.fail, max_nbytes)
    tail = LogTail(run.log(0, 3), run.streams(0, 3))
    yield log, tail
    log.close()
    tail.close()


LINES = st.tuples(st.sampled_from(["stdout", "stderr"]), st.integers(1, 30), st.booleans())


@settings(deadline=None, max_examples=60)
@given(written=st.lists(LINES, max_size=30), limit=st.sampled_from([0, 64, 256]))
def test_every_line_is_told_with_its_own_stream(
    written: list[tuple[str, int, bool]], limit: int
) -> None:
    with tempfile.TemporaryDirectory() as name, log_in(Path(name), limit) as (log, tail):
        shown: list[tuple[str, bytes]] = []
        for number, (stream, length, look) in enumerate(written):
            log.write(stream, f"{stream} {number} {'x' * length}\n".encode())
            if look or limit:  # what is rotated away twice is lost, and told
                shown += [(part.stream, part.data) for part in tail.read()]
        shown += [(part.stream, part.data) for part in tail.read()]
    text = b"".join(data for _, data in shown)
    assert text.decode() == "".join(
        f"{stream} {number} {'x' * length}\n" for number, (stream, length, _) in enumerate(written)
    )
    for stream, data in shown:
        assert all(line.startswith(stream.encode() + b" ") for line in data.splitlines())


def test_unfinished_lines_of_two_streams_do_not_mix(tmp_path: Path) -> None:
    with log_in(tmp_path) as (log, tail):
        log.write("stdout", b"one ")
        log.write("stderr", b" 10%|#\r")
        log.write("stdout", b"line\n")
        log.write("stderr", b" 20%|##\n")
        parts = [*tail.read(), *tail.close()]  # the end of a bar waits for one below it
        shown = [(part.stream, part.data) for part in parts]
    assert shown == [("stdout", b"one line\n"), ("stderr", b" 20%|##\n")]


@pytest.mark.parametrize("streams", [("stdout",), ("stdout", "stderr")])
def test_a_rotation_cuts_no_line(tmp_path: Path, streams: tuple[str, ...]) -> None:
    with log_in(tmp_path, 64) as (log, _):
        for number in range(40):
            log.write(streams[number % len(streams)], f"ends {number}\nline {number} ".encode())
    for name in ("rank3.log", "rank3.log.1"):
        (path,) = tmp_path.glob(f"**/{name}")
        text = path.read_text()
        assert text.startswith("line ") and len(text) < 80
    assert text.endswith("\n")


def test_a_line_that_comes_in_pieces_is_not_cut_by_a_rotation(tmp_path: Path) -> None:
    with log_in(tmp_path, 10) as (log, _):
        for piece in (b"first\n", b"ab", b"cdef", b"gh\nnext", b"\n"):
            log.write("stdout", piece)
    (before,), (path,) = tmp_path.glob("**/rank3.log.1"), tmp_path.glob("**/rank3.log")
    assert (before.read_text(), path.read_text()) == ("first\nabcdefgh\n", "next\n")


def test_a_line_without_an_end_is_cut_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_log, "_LINE_NBYTES", 100)
    with log_in(tmp_path, 10) as (log, _):
        for _ in range(300):
            log.write("stdout", b"x")
    (path,) = tmp_path.glob("**/rank3.log")
    assert 0 < path.stat().st_size <= 110


def test_a_part_has_the_time_at_which_it_came(tmp_path: Path) -> None:
    with log_in(tmp_path) as (log, tail):
        before = time.time()
        log.write("stdout", b"x\n")
        after = time.time()
        (part,) = tail.read()
    assert before - 0.01 <= part.time <= after + 0.01


def test_much_of_one_stream_takes_few_marks(tmp_path: Path) -> None:
    began = time.monotonic()
    with log_in(tmp_path) as (log, _):
        for _ in range(20_000):
            log.write("stdout", b"a line\n")
    marks = (tmp_path / "logs/node0/rank3.streams").read_bytes().splitlines()
    assert len(marks) <= 2 + (time.monotonic() - began) / 0.1


def test_a_copied_run_and_one_without_marks_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with log_in(tmp_path / "run", 40) as (log, _):
        for stream in ("stdout", "stderr", "stdout"):
            log.write(stream, stream.encode() * 5 + b"\n")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")  # other inodes
    for path in (tmp_path / "copy/logs/node0").iterdir():
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    copy = RunDirectory(tmp_path / "copy")
    tail = LogTail(copy.log(0, 3), copy.streams(0, 3))
    assert [part.stream for part in tail.read()] == ["stderr", "stdout"]
    tail.close()
    for path in (tmp_path / "copy/logs/node0").glob("*.streams*"):
        path.unlink()
    tail = LogTail(copy.log(0, 3), copy.streams(0, 3))
    assert [part.stream for part in tail.read()] == ["both", "both"]
    tail.close()
