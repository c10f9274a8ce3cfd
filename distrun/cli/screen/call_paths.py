"""Which ranks are in which calls, as lines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrun.frames import span

if TYPE_CHECKING:
    from distrun.api.stacks import CallPath

Groups = Sequence[tuple[list[int], "CallPath"]]
"""Ranks, and the calls that they are in."""


def call_path_lines(
    groups: Groups, hosts: Mapping[int, str], collectives: Mapping[int, str] | None = None
) -> Iterator[str]:
    """Yield a line for the ranks of each group, and below it their calls and collectives.

    Args:
        groups: In the order to show them.
        hosts: The host of each rank that is asked.
        collectives: In which collective a rank is, or after which.
    """
    for ranks, path in groups:
        yield who(ranks, hosts)
        yield from (f"    {line}" for line in _calls(path))
        for own, told in _alike(ranks, collectives or {}):
            yield f"    {told}" if len(own) == len(ranks) else f"    {span(own)} {told}"


def who(ranks: Sequence[int], hosts: Mapping[int, str]) -> str:
    """Return `rank 3 on node1`, or `6 of 8 ranks: 0-2,4-6`."""
    if len(ranks) > 1:
        return f"{len(ranks)} of {len(hosts)} ranks: {span(ranks)}"
    host = hosts[ranks[0]]
    return f"rank {ranks[0]} on {host}" if host else f"rank {ranks[0]}"


def as_json(groups: Groups) -> list[dict[str, Any]]:
    """Return the groups as plain JSON."""
    return [
        {
            "ranks": ranks,
            "calls": [frame._asdict() for frame in path.user],
            "called": path.called,
            "library": [frame._asdict() for frame in path.library],
        }
        for ranks, path in groups
    ]


def _alike(ranks: Sequence[int], told: Mapping[int, str]) -> list[tuple[list[int], str]]:
    """Return the ranks of which the same is told, and what."""
    found: dict[str, list[int]] = {}
    for rank in ranks:
        if told.get(rank):
            found.setdefault(told[rank], []).append(rank)
    return [(own, words) for words, own in found.items()]


def _calls(path: CallPath) -> Iterator[str]:
    """Yield a line for each call in the user's code, and one for where it is in a library."""
    places = [f"{_shown(frame.file)}:{frame.line}" for frame in path.user]
    width = max(map(len, places), default=0)
    for place, frame in zip(places, path.user, strict=True):
        called = path.called if frame is path.user[-1] else ""
        yield f"{place:<{width}}  {frame.function}{f' → {called}' if called else ''}"
    if path.library:
        inner = path.library[-1]
        yield f"in {inner.function} ({_shown(inner.file)}:{inner.line})"
    elif not path.user:
        yield "in no Python code"


def _shown(file: str) -> str:
    """Return a path as short as it can be read: from here, or from the package's name on."""
    for mark in ("/site-packages/", "/dist-packages/"):
        if mark in file:
            return file.rpartition(mark)[2]
    return file.removeprefix(f"{Path.cwd()}{os.sep}")
