"""Who is slow, from the times of pairs; and the measuring of pairs itself."""

from __future__ import annotations

from itertools import combinations

import pytest

from distrun.bench import pairs
from distrun.bench.pairs import Link, suspects
from distrun.bench.request import Request
from distrun.comm import World
from distrun.testing import run_ranks

REQUEST = Request(
    ops=("pairs", "stragglers"),
    sizes=(4096,),
    dtype="float32",
    redop="sum",
    root=0,
    places=("out",),
    mode="latency",
    iterations=5,
    warmup=1,
    check=True,
    budget_s=10.0,
    backend=None,
    timeout_s=30.0,
)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 9, 16])
def test_every_pair_meets_once_and_nobody_twice_in_a_round(count: int) -> None:
    found = pairs.rounds(count)
    assert len(found) == count - 1 + count % 2
    assert sorted(link for links in found for link in links) == list(combinations(range(count), 2))
    for links in found:
        ends = [end for link in links for end in link]
        assert len(ends) == len(set(ends))


def times(count: int, slow: dict[Link, float]) -> dict[Link, float]:
    return {link: slow.get(link, 1.0 + 0.1 * sum(link)) for link in combinations(range(count), 2)}


@pytest.mark.parametrize(
    ("count", "slow", "kinds"),
    [
        (4, {}, []),
        (4, {(0, 2): 10.0, (1, 2): 11.0, (2, 3): 12.0}, [("node", (2,))]),
        (3, {(0, 2): 10.0, (1, 2): 10.0}, [("node", (2,))]),
        (4, {(1, 3): 10.0}, [("link", (1, 3))]),
        (5, {(1, 3): 10.0, (0, 4): 20.0}, [("link", (0, 4)), ("link", (1, 3))]),
        (3, {(0, 1): 100.0, (1, 2): 4.0}, [("link", (0, 1))]),  # 1-2 was held up a little
        (2, {(0, 1): 100.0}, []),  # there is nothing to compare it with
        (4, {(0, 1): 1.7}, []),  # not twice the usual time
    ],
)
def test_a_slow_node_is_told_from_a_slow_link(
    count: int, slow: dict[Link, float], kinds: list[tuple[str, tuple[int, ...]]]
) -> None:
    found = suspects(times(count, slow), "node")
    assert [(s.kind, s.who) for s in found] == kinds
    assert all(s.factor > 2 for s in found)


def test_of_a_thousand_nodes_the_slow_one_is_found() -> None:
    slow = {tuple(sorted((500, n))): 9.0 + n / 1e4 for n in range(1000) if n != 500}
    links = dict.fromkeys(combinations(range(1000), 2), 1.0) | slow
    (found,) = pairs.suspects(links, "node")
    assert found.who == (500,)


def test_every_pair_of_ranks_or_nodes_is_measured() -> None:
    def over(nodes: list[int]) -> dict[str, object]:
        def fn(world: World) -> dict[str, object]:
            return pairs.measure(REQUEST, world, world, nodes[world.rank])

        first, *others = run_ranks(fn, len(nodes))
        assert all(other == first for other in others)
        return first

    ranks = over([0, 0, 0, 0])
    assert ranks["over"] == "rank"
    assert [(link["a"], link["b"]) for link in ranks["links"]] == list(combinations(range(4), 2))
    nodes = over([0, 0, 1, 1, 2])
    assert nodes["over"] == "node"
    assert [(link["a"], link["b"]) for link in nodes["links"]] == list(combinations(range(3), 2))
    assert all(link["bandwidth"] > 0 for link in nodes["links"])
