"""`-o FILE`: the ending names the format, and a file that fails leaves the old one whole."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from distrun.cli import output_file
from distrun.errors import UsageError


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("r.xml", "-o r.xml: the ending names the format, and '.xml' is not one of .json, .csv",
         "-o r.json"),
        ("my r", "-o my r: the ending names the format, and it must be one of .json, .csv",
         "-o 'my r.json'"),
        ("no/r.csv", "no/r.csv cannot be written",
         "does its directory exist, and may you write to it?"),
        ("d.csv", "d.csv cannot be written: it is a directory", ""),
    ],
)  # fmt: skip
def test_what_could_not_be_written_is_refused(
    name: str, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d.csv").mkdir()
    with pytest.raises(UsageError) as refused:
        output_file.require([Path("fine.json"), Path(name)], (".json", ".csv"))
    assert (refused.value.message, refused.value.hint) == (message, hint)
    assert [path.name for path in tmp_path.iterdir()] == ["d.csv"]


def test_each_file_has_the_format_of_its_ending(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.JSON", "b.csv", "ä ö.csv", "c.bin")]
    formats: output_file.Formats = {
        ".json": lambda: "{}\n", ".csv": lambda: "ä\n", ".bin": lambda: b"\xff"
    }  # fmt: skip
    output_file.require(paths, formats)
    output_file.write_all(paths, formats)
    contents = [path.read_bytes() for path in paths]
    assert contents == [b"{}\n", "ä\n".encode(), "ä\n".encode(), b"\xff"]
    output_file.write_all(None, formats)


def _fails(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_write_that_fails_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "r.json"
    file.write_text("old")
    monkeypatch.setattr(os, "fchmod", _fails)  # the system's call, as on a full disk
    with pytest.raises(UsageError, match="cannot be written: No space left"):
        output_file.write(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    assert file.read_text() == "old"


def test_mode_and_links_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real.name)
    output_file.write(link, "new \ud800")
    assert link.is_symlink()
    assert real.read_text() == "new \\ud800"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "p.json"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        output_file.write(pipe, "words")
        assert os.read(reader, 100) == b"words"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
