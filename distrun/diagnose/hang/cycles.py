"""Ranks that wait for one another: where that ends, and whether it goes round."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping

Edges = Mapping[int, Collection[int]]
"""A rank that waits -> the ranks that it waits for."""


def ends_of(edges: Edges) -> set[int]:
    """Return the ranks that others wait for, and that wait for none."""
    return {rank for targets in edges.values() for rank in targets if not edges.get(rank)}


def shortest_cycle(edges: Edges) -> tuple[int, ...]:
    """Return ranks each of which waits for the next and the last for the first; () for none.

    It is the shortest, and of those one with the lowest first rank.
    """
    best: tuple[int, ...] = ()
    for start in sorted(edges):
        found = _back_to(start, edges, len(best) or len(edges) + 1)
        if found and (not best or len(found) < len(best)):
            best = found
        if len(best) == 2:
            break
    return best


def _back_to(start: int, edges: Edges, limit: int) -> tuple[int, ...]:
    """Return the shortest way from a rank to itself, () if there is none below `limit`."""
    before: dict[int, int] = {}
    queue = deque([(start, 1)])
    while queue:
        rank, length = queue.popleft()
        if length > limit:
            break
        for target in sorted(edges.get(rank, ())):
            if target == start:
                way = [rank]
                while way[-1] != start:
                    way.append(before[way[-1]])
                return tuple(reversed(way))
            if target not in before:
                before[target] = rank
                queue.append((target, length + 1))
    return ()
