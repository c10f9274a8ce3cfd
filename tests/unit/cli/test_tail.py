"""Whatever a rank prints, each of its lines comes out whole, alone, and once."""

from __future__ import annotations

import io
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distrun.api.runs import RunFile
from distrun.cli.screen.tail import LineAssembler, LogTail


def assembled(*chunks: bytes) -> bytes:
    """Return all that comes out, the unfinished line included."""
    lines = LineAssembler()
    return b"".join([*(lines.feed(chunk) for chunk in chunks), lines.flush()])


@pytest.mark.parametrize(
    ("chunks", "shown"),
    [
        ([b"a\nb\n"], b"a\nb\n"),
        ([b"a", b"b", b"\nc"], b"ab\nc\n"),
        ([b"\n\n"], b"\n\n"),
        ([b""], b""),
        ([b"a\r\nb\r\n"], b"a\nb\n"),
        ([b"a\r", b"\nb\r\n"], b"a\nb\n"),
        ([b" 1%\r 50%\r100%\n"], b"100%\n"),
        ([b"\r 1%", b"\r 50%", b"\r100%", b"\n"], b"100%\n"),
        ([b" 1%\r 50%\r"], b" 50%\n"),
        ([b"a\n 1%\r 2%\nb\n"], b"a\n 2%\nb\n"),
        ([b"\r\r\r\n"], b"\n"),
        ([b"\r"], b""),
        ([b"a\0b\n"], b"a\0b\n"),
        ([b"caf\xc3", b"\xa9\n"], "caf\u00e9\n".encode()),
        ([b"\xff\xfe ok\n"], "\ufffd\ufffd ok\n".encode()),
        ([b"half \xc3\n"], "half \ufffd\n".encode()),
        ([b"\x1b[31mred\x1b[0m\n"], b"\x1b[31mred\x1b[0m\n"),
    ],
)
def test_bytes_become_lines(chunks: list[bytes], shown: bytes) -> None:
    assert assembled(*chunks) == shown


_PIECES = st.sampled_from(
    [b"a", b"\n", b"\xc3\xa9", b"\xff", b"\0", b" ", b"\xe6\x97\xa5", b"\x1b[0m", b"word " * 9]
)


@settings(deadline=None)
@given(
    text=st.lists(_PIECES | st.binary(max_size=5), max_size=40).map(b"".join),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=20),
)
def test_however_the_bytes_are_cut_the_same_lines_come_out(text: bytes, sizes: list[int]) -> None:
    text = text.replace(b"\r", b"")
    chunks: list[bytes] = []
    start = 0
    while start < len(text):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(text[start : start + size])
        start += size
    end = b"" if text.endswith(b"\n") or not text else b"\n"
    assert assembled(*chunks) == (text + end).decode(errors="replace").encode()


@settings(deadline=None)
@given(
    lines=st.lists(st.text("ab\r ", max_size=8), max_size=8),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=9),
)
def test_bars_too_come_out_the_same_however_they_are_cut(
    lines: list[str], sizes: list[int]
) -> None:
    text = "".join(line + "\n" for line in lines).encode()
    chunks: list[bytes] = []
    start = 0
    while start < len(text):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(text[start : start + size])
        start += size
    shown = assembled(*chunks)
    assert shown == assembled(text)
    assert shown.count(b"\n") == len(lines)
    assert b"\r" not in shown


def test_a_megabyte_without_an_end_is_cut_and_nothing_of_it_lost() -> None:
    lines = LineAssembler()
    shown = b"".join(lines.feed(b"x" * 4096) for _ in range(256)) + lines.flush()
    assert shown.replace(b"\n", b"") == b"x" * (1 << 20)
    assert max(map(len, shown.split(b"\n"))) <= (1 << 16) + 4096


def test_a_bar_without_an_end_takes_no_memory() -> None:
    lines = LineAssembler()
    for percent in range(20_000):
        assert lines.feed(b"\r%d%% of it" % percent) == b""
    assert lines.flush() == b"19999% of it\n"
    assert len(vars(lines)["_pending"]) == 0


@pytest.mark.parametrize(
    "block",
    [
        b"x" * 1_000_000 + b"\r\n",
        b"x" * 1_000_000 + b"\na\rb\n",
        b"\r" * 1_000_000 + b"\n",
        b"a\r" * 500_000 + b"\n",
        b"\r\n" * 500_000,
    ],
    ids=["CRLF", "long, then a bar", "returns", "bar", "empty CRLF lines"],
)
def test_hostile_megabytes_take_no_more_than_a_moment(block: bytes) -> None:
    began = time.process_time()
    assert b"\r" not in LineAssembler().feed(block)
    assert time.process_time() - began < 1.0


def test_an_unfinished_line_is_shown_after_a_second() -> None:
    lines = LineAssembler()
    lines.feed(b"Password: ")
    now = time.monotonic()
    assert lines.overdue(now) == b""
    assert lines.overdue(now + 1.1) == b"Password: \n"
    assert lines.overdue(now + 9) == b""
    assert lines.feed(b"rest\n") == b"rest\n"


def test_a_bar_is_no_line_until_it_ends_and_its_newest_state_is_known() -> None:
    lines = LineAssembler()
    assert lines.bar == b""
    assert lines.feed(b"begun\n 1%\r") == b"begun\n"
    assert lines.bar == b"1%"
    lines.feed(b" 2%\r")
    lines.feed("\r3%|█▌  ".encode() + b"\xe2\x96")  # in the middle of a character
    assert lines.bar == "3%|█▌  \ufffd".encode()
    assert lines.overdue(time.monotonic() + 3600) == b""
    assert lines.feed(b"\r100%\nnext\n") == b"100%\nnext\n"
    assert lines.bar == b""
    lines.feed(b"\r 1%")
    assert (lines.flush(), lines.bar) == (b" 1%\n", b"")


def test_a_bar_below_another_takes_its_turn_in_one_line() -> None:
    lines = LineAssembler()
    lines.feed(b"\repoch 0/2")
    for batch in (1, 2):
        assert lines.feed(b"\n\rbatch %d/2\x1b[A" % batch) == b""
        assert lines.bar == b"batch %d/2" % batch
    assert lines.feed(b"\n\n\rpart 1/9\x1b[A\x1b[A") == b""  # two below
    assert lines.bar == b"part 1/9"
    assert lines.feed(b"\n\r         \r\x1b[A\repoch 2/2\n") == b""
    now = time.monotonic()
    assert lines.overdue(now) == b""  # one may yet be drawn below it
    assert lines.overdue(now + 0.3) == b"epoch 2/2\n"


def test_a_real_bar_of_tqdm_is_one_line_at_its_end() -> None:
    tqdm = pytest.importorskip("tqdm").tqdm
    written = io.StringIO()
    for _ in tqdm(range(3), desc="epoch", file=written, mininterval=0, ncols=60):
        for _ in tqdm(range(50), desc="batch", file=written, mininterval=0, leave=False, ncols=60):
            pass
    lines = LineAssembler()
    updates = re.split("(?=[\n\r\x1b])", written.getvalue())  # as it writes them
    shown = b"".join(lines.feed(update.encode()) for update in updates)
    shown += lines.flush()
    assert shown.count(b"\n") == 1 and shown.startswith(b"epoch: 100%|")


# --- files ---------------------------------------------------------------------------------


def read(tail: LogTail) -> bytes:
    return b"".join(part.data for part in tail.read())


def rest(tail: LogTail) -> bytes:
    return b"".join(part.data for part in tail.close())


def tail_of(log: Path) -> LogTail:
    streams = log.with_suffix(".streams").name
    return LogTail(RunFile(log.parent, (log.name,)), RunFile(log.parent, (streams,)))


def test_a_file_is_followed_from_before_it_is_there_over_its_rotation(tmp_path: Path) -> None:
    log = tmp_path / "rank0.log"
    tail = tail_of(log)
    assert read(tail) == b""
    log.write_bytes(b"one\ntw")
    assert read(tail) == b"one\n"
    with log.open("ab") as file:
        file.write(b"o\n")
    log.replace(tmp_path / "rank0.log.1")
    log.write_bytes(b"three\nfour")
    assert read(tail) == b"two\nthree\n"
    assert rest(tail) == b"four\n"
    assert rest(tail) == b""


def test_between_two_names_of_a_rotation_nothing_is_lost(tmp_path: Path) -> None:
    log = tmp_path / "rank0.log"
    log.write_bytes(b"one\n")
    tail = tail_of(log)
    assert read(tail) == b"one\n"
    os.replace(log, tmp_path / "rank0.log.1")  # noqa: PTH105 as the supervisor does it
    assert read(tail) == b""
    log.write_bytes(b"two\n")
    assert read(tail) == b"two\n"
    tail.close()


def test_what_was_rotated_away_comes_first(tmp_path: Path) -> None:
    (tmp_path / "rank0.log.1").write_bytes(b"one\ntw")
    (tmp_path / "rank0.log").write_bytes(b"o\nthree\n")
    tail = tail_of(tmp_path / "rank0.log")
    assert read(tail) == b"one\ntwo\nthree\n"
    tail.close()


def test_what_was_lost_in_two_rotations_is_told_and_glues_no_lines_together(tmp_path: Path) -> None:
    log = tmp_path / "rank0.log"
    log.write_bytes(b"one\nhalf")
    tail = tail_of(log)
    assert read(tail) == b"one\n"
    log.unlink()
    (tmp_path / "rank0.log.1").write_bytes(b"lost\n")
    log.write_bytes(b"new\n")
    told = b"(distrun: the log was rotated before all of it could be shown)\n"
    assert read(tail) == b"half\n" + told + b"new\n"
    tail.close()


def test_lines_that_come_between_the_end_of_a_file_and_its_rotation_are_shown(
    tmp_path: Path,
) -> None:
    log = tmp_path / "rank0.log"
    log.write_bytes(b"one\n")
    tail = tail_of(log)
    assert read(tail) == b"one\n"
    fstat = os.fstat

    def rotating(fd: int) -> os.stat_result:
        """The first look after the end was read: the log grows, and is rotated."""
        patch.undo()
        with log.open("ab") as file:
            file.write(b"two\n")
        log.replace(tmp_path / "rank0.log.1")
        log.write_bytes(b"three\n")
        return fstat(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fstat", rotating)
        assert read(tail) == b"two\nthree\n"
    tail.close()
