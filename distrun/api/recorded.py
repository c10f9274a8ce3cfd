"""Reads nodes from files of `--save`, and gives each a unique name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from distrun.probe.snapshot import Node
from distrun.spec.snapshot import read_snapshots


def read_recorded(paths: Sequence[Path]) -> list[Node]:
    """Return the nodes of all files.

    A machine that was checked alone is named `this machine`. Nodes with equal names are renamed to
    their hostnames, else to their files' names, whichever is unique.

    Raises:
        UsageError: A file cannot be read, or contains no nodes.
    """
    read = [(path, node) for path in paths for node in read_snapshots(path, Node)]
    count = Counter(node.name for _, node in read)
    taken = {name for name, many in count.items() if many == 1}
    names: dict[str, list[str]] = {}
    for name, many in count.items():
        alike = [(path, node) for path, node in read if node.name == name]
        names[name] = [name] if many == 1 else _told_apart(alike, taken)
        taken.update(names[name])
    return [_renamed(node, names[node.name].pop(0)) for _, node in read]


def _told_apart(alike: Sequence[tuple[Path, Node]], taken: set[str]) -> list[str]:
    for names in (
        [node.host.hostname for _, node in alike],
        [path.stem for path, _ in alike],
        [str(path) for path, _ in alike],
    ):
        if all(names) and len(set(names)) == len(names) and not taken & set(names):
            return names
    return [f"{node.name} ({number})" for number, (_, node) in enumerate(alike, 1)]


def _renamed(node: Node, name: str) -> Node:
    new = {node.name: name}
    reaches = tuple(
        replace(r, source=new.get(r.source, r.source), target=new.get(r.target, r.target))
        for r in node.reaches
    )
    return replace(node, name=name, reaches=reaches)
