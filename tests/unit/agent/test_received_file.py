"""Files of a project where they arrive: nothing is written outside, nothing is half written."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from distrun.agent.received_file import ReceivedFile, Refused, is_inside, link_is_inside

TIME_NS = 1_700_000_000_123_456_789


def received(root: Path, name: str, content: bytes = b"new", link: str | None = None) -> None:
    file = ReceivedFile(root, name, 0o750, len(content), TIME_NS, link)
    assert file.differs()
    if link is None:
        file.write(io.BytesIO(content))
    file.finish()
    assert not file.differs()


def test_a_file_arrives_with_its_permissions_and_time(tmp_path: Path) -> None:
    received(tmp_path, "a/b/c.py")
    facts = (tmp_path / "a/b/c.py").stat()
    assert (facts.st_mode & 0o777, facts.st_mtime_ns) == (0o750, TIME_NS)
    assert [*(tmp_path / "a/b").iterdir()] == [tmp_path / "a/b/c.py"]


def test_a_file_that_rsync_has_sent_later_and_longer_stays_and_is_sent_again(
    tmp_path: Path,
) -> None:
    file = ReceivedFile(tmp_path, "log.txt", 0o640, 3, TIME_NS, None)
    (tmp_path / "log.txt").write_text("grown meanwhile")
    file.finish()
    assert (tmp_path / "log.txt").read_text() == "grown meanwhile"
    assert file.differs()


@pytest.mark.parametrize("name", ["-rf", "two\nlines", os.fsdecode(b"we\xffird"), " ", "a\\b"])
def test_odd_names_arrive(tmp_path: Path, name: str) -> None:
    received(tmp_path, name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("made", ["directory", "link"])
def test_another_host_of_a_shared_directory_may_make_a_directory_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    mkdir = Path.mkdir

    def beaten(path: Path) -> None:
        mkdir(path) if made == "directory" else path.symlink_to("/")
        mkdir(path)

    monkeypatch.setattr(Path, "mkdir", beaten)
    if made == "directory":
        received(tmp_path, "a/b/c.py")
    else:
        with pytest.raises(Refused, match="'a' is a link there"):
            received(tmp_path, "a/b/c.py")


def test_a_link_arrives_as_a_link_and_takes_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    received(tmp_path, "a", link="b/c")
    assert str((tmp_path / "a").readlink()) == "b/c"


def test_a_file_takes_the_place_of_a_link_and_leaves_its_target_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "a").symlink_to("target")
    received(tmp_path, "a")
    assert (tmp_path / "target").read_text() == "theirs"
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize(
    "name", ["/etc/x", "../x", "a/../../x", "", ".", "a//b", "a/", "./a", "a\0b", ".."]
)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    assert not is_inside(name)
    with pytest.raises(Refused, match="leads out of the project"):
        ReceivedFile(tmp_path, name, 0o644, 0, 0, None)


@pytest.mark.parametrize(
    ("name", "link", "inside"),
    [
        ("a", "b", True),
        ("a", "./b/../c", True),
        ("d/a", "../b", True),
        ("d/a", "../../b", False),
        ("a", "..", False),
        ("a", "/etc/passwd", False),
        ("a", "b/../../c", False),
        ("a", "", False),
    ],
)
def test_a_link_that_leads_out_is_refused(
    tmp_path: Path, name: str, link: str, inside: bool
) -> None:
    assert link_is_inside(name, link) is inside
    if not inside:
        with pytest.raises(Refused):
            ReceivedFile(tmp_path, name, 0o777, 0, 0, link)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda place: place.symlink_to("/tmp"), "'sub' is a link there"),
        (lambda place: place.write_text("theirs"), "'sub' is a file there"),
    ],
)
def test_nothing_is_written_through_a_link_or_a_file(
    tmp_path: Path, make: object, words: str
) -> None:
    make(tmp_path / "sub")  # type: ignore[operator]
    file = ReceivedFile(tmp_path, "sub/a", 0o644, 3, 0, None)
    for act in (file.differs, lambda: file.write(io.BytesIO(b"new"))):
        with pytest.raises(Refused, match=words):
            act()


def test_a_directory_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(Refused, match="'a' is a directory there"):
        ReceivedFile(tmp_path, "a", 0o644, 3, 0, None).differs()


def test_the_old_file_stays_if_the_new_one_does_not_arrive_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(EOFError):
        ReceivedFile(tmp_path, "a", 0o644, 5, 0, None).write(io.BytesIO(b"new"))
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("other"),
        lambda path: path.chmod(0o600),
        lambda path: os.utime(path),
        lambda path: path.unlink(),
    ],
    ids=["size", "permissions", "time", "gone"],
)
def test_what_was_changed_there_differs(tmp_path: Path, change: object) -> None:
    received(tmp_path, "a")
    change(tmp_path / "a")  # type: ignore[operator]
    assert ReceivedFile(tmp_path, "a", 0o750, 3, TIME_NS, None).differs()
