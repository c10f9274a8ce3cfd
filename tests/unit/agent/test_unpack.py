"""Packages that were left on a machine: which are removed by the next start."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from distrun.agent.unpack import MARK, PREFIX, remove_leftovers

DAY_S = 24 * 3600


def package(directory: Path, name: str, age_s: float = DAY_S + 60) -> Path:
    place = directory / name
    (place / "distrun").mkdir(parents=True)
    (place / MARK).touch()
    then = time.time() - age_s
    os.utime(place, (then, then))
    return place


def test_an_old_package_is_removed(tmp_path: Path) -> None:
    place = package(tmp_path, f"{PREFIX}abc")
    (place / MARK).unlink()
    os.utime(place, (0, 0))
    package(tmp_path, f"{PREFIX}def")
    remove_leftovers(str(tmp_path))
    assert not [*tmp_path.iterdir()]


def test_a_package_in_use_stays_however_old_it_is(tmp_path: Path) -> None:
    place = package(tmp_path, f"{PREFIX}abc", age_s=90 * DAY_S)
    with open(place / MARK) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_leftovers(str(tmp_path))
        assert place.exists()
    remove_leftovers(str(tmp_path))
    assert not place.exists()


@pytest.mark.parametrize(("name", "age_s"), [(f"{PREFIX}abc", 3600.0), ("distrun-abc", 9 * DAY_S)])
def test_what_is_new_or_not_ours_stays(tmp_path: Path, name: str, age_s: float) -> None:
    place = package(tmp_path, name, age_s)
    remove_leftovers(str(tmp_path))
    assert place.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    theirs = package(tmp_path, "theirs")
    (tmp_path / f"{PREFIX}abc").symlink_to(theirs)
    remove_leftovers(str(tmp_path))
    assert (theirs / MARK).exists()


def test_a_directory_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    remove_leftovers(str(tmp_path / "none"))
