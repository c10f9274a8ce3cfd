"""Addresses of a machine, and what tells it from others."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrun.identity import boot_id, directory_id
from distrun.listen import is_loopback


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        *((each, True) for each in ("127.0.0.1", "127.0.1.1", "::1", "::ffff:127.0.0.1")),
        *((each, False) for each in ("10.0.0.1", "fe80::1%eth0", "::", "", "127.example.org")),
    ],
)
def test_a_loopback_address_is_known_by_its_value(address: str, is_one: bool) -> None:
    assert is_loopback(address) == is_one


def test_a_directory_is_the_same_by_any_path_and_another_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    same = directory_id(tmp_path / "a")
    assert same == directory_id(tmp_path / "link") == directory_id(tmp_path / "a/../a")
    assert bool(same) == bool(boot_id())
    assert directory_id(tmp_path) != same or not same
    assert directory_id(tmp_path / "missing") == []
