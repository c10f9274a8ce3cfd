"""Every pair of nodes, or of ranks, by itself: which of them is slow.

In each of n-1 rounds every node talks to one other, and no two pairs share a node: the circle
method of tournaments. What looks slow is measured again alone, since a slow pair may have
held up others on its switch.
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
"""So many times the usual time makes a suspect."""
ALIKE = 4.0
"""The links of a slow node are slow alike: none takes so many times as long as another."""

Link = tuple[int, int]


@dataclass(frozen=True)
class Suspect:
    """A node, or a link between two, that is slower than the others."""

    kind: str
    """node or link; of ranks, rank or link."""
    who: tuple[int, ...]
    factor: float
    """Its time / the usual time."""


def rounds(count: int) -> list[list[Link]]:
    """Return the pairs of each round: each pair once, nobody twice in a round."""
    seats: list[int | None] = [*range(count)]
    if count % 2:
        seats.append(None)  # who sits opposite of nobody rests
    half, found = len(seats) // 2, []
    for _ in range(len(seats) - 1):
        opposite = zip(seats[:half], reversed(seats[half:]), strict=True)
        found.append(
            [(min(a, b), max(a, b)) for a, b in opposite if a is not None and b is not None]
        )
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return found


def suspects(times_s: Mapping[Link, float], one: str) -> list[Suspect]:
    """Return who is slow, the slowest first; nobody of fewer than three links.

    A node is slow if its links are slow alike, beside the links of the others; a link, if it
    is and neither of its nodes is.

    Args:
        times_s: Time of each link.
        one: What an end is called: node or rank.
    """
    if len(times_s) < 3:
        return []
    found = []
    for end in sorted({end for link in times_s for end in link}):
        own = [t for link, t in times_s.items() if end in link]
        others = [t for link, t in times_s.items() if end not in link]
        alike = max(own) <= ALIKE * min(own)  # else it is one of its links
        if others and alike and (factor := min(own) / statistics.median(others)) > SLOW:
            found.append(Suspect(one, (end,), factor))
    slow_ends = {suspect.who[0] for suspect in found}
    usual = statistics.median(times_s.values())
    for link, time_s in times_s.items():
        if not slow_ends & set(link) and (factor := time_s / usual) > SLOW:
            found.append(Suspect("link", link, factor))
    return sorted(found, key=lambda suspect: -suspect.factor)


def measure(request: Request, world: World, control: World, node_rank: int) -> dict[str, Any]:
    """Measure every pair; return the line that tells it. Every rank has to call this."""
    everyone: list[int] = control.all_gather_object(node_rank)
    first = {node: everyone.index(node) for node in sorted(set(everyone))}
    over_nodes = len(first) > 1
    ranks = list(first.values()) if over_nodes else list(range(world.world_size))
    one = "node" if over_nodes else "rank"
    nbytes = max(request.sizes)
    times_s: dict[Link, float] = {}
    for pairs in rounds(len(ranks)):
        times_s |= _round(pairs, ranks, nbytes, request, world, control)
    again: list[Link] = []
    for suspect in suspects(times_s, one):
        again += [link for link in times_s if set(suspect.who) <= set(link) and link not in again]
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
    """Return the time of a message on each of some pairs, which talk at once."""
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

    The fastest: what is slow for a moment is the machine, what is always slow is the link.
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
