"""Nodes out of files: those of one name are told apart, and all else is as it was written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from distrun.api.recorded import read_recorded
from distrun.probe.snapshot import Reach
from tests.unit.checks.bases import server

HERE = "this machine"


def written(path: Path, *nodes: tuple[str, str]) -> Path:
    """Write nodes of these names and hostnames."""
    found = []
    for name, hostname in nodes:
        node = server()
        host = dataclasses.replace(node.host, hostname=hostname)
        node = dataclasses.replace(node, name=name, host=host, reaches=reaches_of(name))
        found.append(dataclasses.asdict(node))
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found))
    return path


def reaches_of(name: str) -> tuple[Reach, ...]:
    return (Reach(name, name, "", 29500, "is in use"), Reach(name, "other", "10.0.0.9", 29500))


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"a.json": [(HERE, "h1")]}, [HERE]),
        ({"a.json": [(HERE, "h1")], "b.json": [(HERE, "h2")]}, ["h1", "h2"]),
        ({"a.json": [(HERE, "h1")], "b.json": [(HERE, "h1")]}, ["a", "b"]),
        ({"a.json": [(HERE, "")], "b c;.json": [(HERE, "h1")]}, ["a", "b c;"]),
        ({"a.json": [(HERE, "n1")], "b.json": [(HERE, "n2"), ("n1", "x")]}, ["a", "b", "n1"]),
        ({"a.json": [("n1", "x"), ("n2", "x")]}, ["n1", "n2"]),
        ({"a.json": [(HERE, "h1"), (HERE, "h1")]}, [f"{HERE} (1)", f"{HERE} (2)"]),
        (
            {"a.json": [("n1", "x"), ("n2", "y")], "b.json": [("n1", "z"), ("n2", "")]},
            ["x", "a", "z", "b"],
        ),
    ],
)
def test_nodes_of_one_name_are_told_apart(
    tmp_path: Path, files: dict[str, list[tuple[str, str]]], names: list[str]
) -> None:
    paths = [written(tmp_path / name, *nodes) for name, nodes in files.items()]
    nodes = read_recorded(paths)
    assert [node.name for node in nodes] == names
    assert [node.reaches for node in nodes] == [reaches_of(name) for name in names]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [written(tmp_path / folder / "s.json", (HERE, "h")) for folder in ("a", "b")]
    assert [node.name for node in read_recorded(paths)] == [str(path) for path in paths]


def test_the_same_file_twice_is_two_nodes(tmp_path: Path) -> None:
    path = written(tmp_path / "s.json", (HERE, "h"))
    names = [node.name for node in read_recorded([path, path])]
    assert names == [f"{HERE} (1)", f"{HERE} (2)"]
