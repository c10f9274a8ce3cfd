"""`distrun recipes copy` writes through no link that somebody else has put there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distrun.api import without_links
from distrun.api.recipes import copy
from distrun.errors import UsageError

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a link of another user takes root to make")


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file, somewhere else, that must stay as it is."""
    file = tmp_path / "victim"
    file.write_text("before")
    return file


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.mark.parametrize("name", ["single.py", "model.py", "data.py"])
@pytest.mark.parametrize("leads", ["to a file", "nowhere"])
def test_a_link_in_the_place_of_a_file_is_in_the_way(
    place: Path, victim: Path, name: str, leads: str
) -> None:
    if leads == "nowhere":
        victim.unlink()
    (place / name).symlink_to(victim)
    with pytest.raises(UsageError, match=f"{name} exists"):
        copy("single", place)
    assert victim.exists() == (leads == "to a file")
    assert names(place) == [name]


@pytest.mark.parametrize("leads", ["to a file", "nowhere"])
def test_with_force_the_link_itself_is_replaced(place: Path, victim: Path, leads: str) -> None:
    if leads == "nowhere":
        victim.unlink()
    (place / "single.py").symlink_to(victim)
    copied = copy("single", place, force=True)
    assert not copied.script.is_symlink() and "def train" in copied.script.read_text()
    assert not victim.exists() if leads == "nowhere" else victim.read_text() == "before"
    assert not [name for name in names(place) if name[0] == "."]


def test_a_link_to_what_would_be_written_does_not_pass_for_it(place: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    theirs = copy("single", tmp_path / "theirs").script
    (place / "single.py").symlink_to(theirs)
    with pytest.raises(UsageError, match="exists"):
        copy("single", place)


@as_root
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("where", ["shared/link", "shared/link/below", "shared/own/link"])
def test_a_directory_is_not_reached_through_a_link_of_another_user(
    tmp_path: Path, place: Path, where: str, force: bool
) -> None:
    (place / "below").mkdir()
    link = tmp_path / "shared" / ("own/link" if "own" in where else "link")
    link.parent.mkdir(parents=True)
    link.symlink_to(place)
    os.lchown(link, NOBODY, NOBODY)
    with pytest.raises(UsageError, match="'link' is a link that another user has made"):
        copy("single", tmp_path / where, force=force)
    assert names(place) == ["below"]


@as_root
def test_a_link_of_ones_own_that_leads_to_one_of_another_user_is_no_way_either(
    tmp_path: Path, place: Path
) -> None:
    (tmp_path / "theirs").symlink_to(place)
    os.lchown(tmp_path / "theirs", NOBODY, NOBODY)
    (tmp_path / "mine").symlink_to("theirs")
    with pytest.raises(UsageError, match="'theirs' is a link that another user has made"):
        copy("single", tmp_path / "mine")


@pytest.mark.parametrize("target", ["../place", "place/../place", "{tmp_path}/place"])
def test_links_of_ones_own_are_followed(tmp_path: Path, place: Path, target: str) -> None:
    (tmp_path / "links").mkdir()
    depth = "" if target.startswith("{") else "../" * (not target.startswith(".."))
    (tmp_path / "links" / "mine").symlink_to(depth + target.format(tmp_path=tmp_path))
    copy("single", tmp_path / "links" / "mine" / "train.py")
    assert (place / "train.py").is_file()


def test_links_that_lead_in_a_circle_end_in_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"), without_links.directory(tmp_path / "a"):
        pass


def test_what_cannot_be_written_whole_is_taken_away(place: Path) -> None:
    with without_links.directory(place) as fd, pytest.raises(TypeError):
        without_links.write(fd, "a.py", 5, replace=True)  # type: ignore[arg-type]
    assert names(place) == []


def test_a_fifo_is_not_waited_for(place: Path) -> None:
    os.mkfifo(place / "single.py")
    with pytest.raises(UsageError, match="exists"):
        copy("single", place)
    copy("single", place, force=True)
    assert (place / "single.py").is_file()
