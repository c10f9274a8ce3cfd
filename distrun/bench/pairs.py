"""Measures every pair of nodes or ranks, and finds slow nodes and links.

In each of n-1 rounds every node exchanges messages with one other node (the circle method of
round-robin tournaments). Slow pairs are measured again alone, because a slow pair may slow down
others on its switch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from distrun.bench.request import Request
from distrun.comm import World

SLOW = 2.0
"""A suspect takes this many times the median time."""
ALIKE = 4.0
"""The links of a slow node are all slow: none takes this many times as long as another."""

Link = tuple[int, int]


@dataclass(frozen=True)
class Suspect:
    """A node or a link that is slower than the others."""

    kind: str
    """node or link; rank or link if ranks are measured."""
    who: tuple[int, ...]
    factor: float
    """Its time / the median time."""


def rounds(count: int) -> list[list[Link]]:
    """Return the pairs of each round: each pair once, each node at most once per round."""
    seats: list[int | None] = [*range(count)]
    if count % 2:
        seats.append(None)  # with an odd number one node is idle
    half, found = len(seats) // 2, []
    for _ in range(len(seats) - 1):
        opposite = zip(seats[:half], reversed(seats[half:]), strict=True)
        found.append(
            [(min(a, b), max(a, b)) for a, b in opposite if a is not None and b is not None]
        )
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return found


def suspects(times_s: Mapping[Link, float], one: str) -> list[Suspect]:
    """Return the suspects, the slowest first; none if there are fewer than three links.

    A node is slow if all of its links are slow compared with the others' links. A link is slow if
    it is and neither of its nodes is.

    Args:
        times_s: Time of each link.
        one: The name of an end: node or rank.
    """
    if len(times_s) < 3:
        return []
    found = []
    usual, in_order = statistics.median(times_s.values()), sorted(times_s.values())
    of_end: dict[int, list[float]] = {}
    for link, time_s in times_s.items():
        for end in link:
            of_end.setdefault(end, []).append(time_s)
    for end, own in sorted(of_end.items()):
        alike = max(own) <= ALIKE * min(own)  # else only one of its links is slow
        count = len(times_s) - len(own)
        # The median of the others is at least this one, and most nodes are sound.
        if not count or not alike or min(own) <= SLOW * in_order[(count - 1) // 2]:
            continue
        others = [t for link, t in times_s.items() if end not in link]
        if (factor := min(own) / statistics.median(others)) > SLOW:
            found.append(Suspect(one, (end,), factor))
    slow_ends = {suspect.who[0] for suspect in found}
    for link, time_s in times_s.items():
        if not slow_ends & set(link) and (factor := time_s / usual) > SLOW:
            found.append(Suspect("link", link, factor))
    return sorted(found, key=lambda suspect: -suspect.factor)


def measure(request: Request, world: World, control: World, node_rank: int) -> dict[str, Any]:
    """Measure every pair; return the result's line. Every rank must call this."""
    everyone: list[int] = control.all_gather_object(node_rank)
    first = {node: everyone.index(node) for node in sorted(set(everyone))}
    over_nodes = len(first) > 1
    ranks = list(first.values()) if over_nodes else list(range(world.world_size))
    one = "node" if over_nodes else "rank"
    nbytes = max(request.sizes)
    times_s: dict[Link, float] = {}
    for pairs in rounds(len(ranks)):
        times_s |= _round(pairs, ranks, nbytes, request, world, control)
    again: dict[Link, None] = {}
    for suspect in suspects(times_s, one):
        again.update((link, None) for link in times_s if set(suspect.who) <= set(link))
    for link in again:
        times_s |= _round([link], ranks, nbytes, request, world, control)
    return {
        "bench": "pairs",
        "over": one,
        "nbytes": nbytes,
        "links": [
            {
                "a": a,
                "b": b,
                "time_s": t,
                "bandwidth": nbytes / t,
                "measured_alone": (a, b) in again,
            }
            for (a, b), t in sorted(times_s.items())
        ],
        "suspects": [
            {"kind": s.kind, "who": list(s.who), "factor": s.factor} for s in suspects(times_s, one)
        ],
    }


def _round(
    pairs: Sequence[Link],
    ranks: Sequence[int],
    nbytes: int,
    request: Request,
    world: World,
    control: World,
) -> dict[Link, float]:
    """Return the time of a message for each of some pairs that run at once."""
    control.barrier()
    mine: dict[Link, float] = {}
    for link in pairs:
        ends = ranks[link[0]], ranks[link[1]]
        if world.rank in ends:
            mine[link] = _pingpong(world, ends, nbytes, request)
    found: dict[Link, float] = {}
    for each in control.all_gather_object(mine):
        for link, time_s in each.items():
            found[link] = max(time_s, found.get(link, 0.0))
    return found


def _pingpong(world: World, ends: Link, nbytes: int, request: Request) -> float:
    """Return the fastest time of a message between two ranks, half of a round trip.

    The fastest, because noise slows some messages, and a slow link slows all.
    """
    data = torch.zeros(nbytes, dtype=torch.uint8, device=world.device)
    transport, (first, second) = world.transport, ends
    times = []
    for _ in range(request.warmup + request.iterations):
        began = time.perf_counter()
        if world.rank == first:
            transport.send(data, second, 0).wait()
            transport.recv(data, second, 0).wait()
        else:
            transport.recv(data, first, 0).wait()
            transport.send(data, first, 0).wait()
        if world.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times[request.warmup :]) / 2
