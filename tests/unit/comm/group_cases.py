"""Objects, barriers, and the parts of a world, at any number of ranks."""

from __future__ import annotations

from typing import Any

import torch

from distrun.comm import ClosedError, World
from tests.unit.comm.collective_cases import Cases, Pair, refusal, same

CASES = Cases()


def thing(rank: int) -> Any:
    """Return an object of another size and type on each rank."""
    return [None, {"x": [1, "é"]}, Pair(b"\0" * 5000, rank)][rank % 3]


@CASES
def objects_of_all_ranks_come_to_all_or_to_the_root(world: World) -> None:
    n = world.world_size
    everyone = [thing(r) for r in range(n)]
    assert world.all_gather_object(thing(world.rank)) == everyone
    for dst in range(n):
        found = world.gather_object(thing(world.rank), dst)
        assert found == (everyone if world.rank == dst else None)


@CASES
def the_roots_object_comes_to_all_and_the_others_are_not_looked_at(world: World) -> None:
    for src in range(world.world_size):
        mine = thing(src) if world.rank == src else lambda: "cannot be pickled"
        assert world.broadcast_object(mine, src) == thing(src)
        values = [(src, r, thing(r)) for r in range(world.world_size)]
        found = world.scatter_object(values if world.rank == src else None, src)
        assert found == values[world.rank]


@CASES
def objects_for_too_few_ranks_are_refused_on_every_rank(world: World) -> None:
    n = world.world_size
    for values, count in (([], 0), (None, 0), ([1] * (n + 1), n + 1)):
        given = values if world.rank == 0 else None
        error = refusal(lambda given=given: world.scatter_object(given))
        assert str(error) == f"scatter_object: rank 0 passed {count} objects for {n} ranks"


@CASES
def a_group_knows_who_is_in_it(world: World) -> None:
    assert world.all_gather_object(world.rank) == list(range(world.world_size))
    assert world.device == torch.device("cpu")
    assert repr(world) == (
        f"<the world: rank {world.rank} of {world.world_size}, {world.backend} on cpu>"
    )
    world.barrier()


@CASES
def ranks_of_one_colour_form_a_part_in_rank_order(world: World) -> None:
    for colour in (world.rank % 2, -world.rank, 10**12):
        part = world.split(colour)
        assert part is not None
        members = [r for r, c in enumerate(world.all_gather_object(colour)) if c == colour]
        assert part.all_gather_object(world.rank) == members
        assert part.rank == members.index(world.rank)
        assert part.local_rank == world.local_rank
        assert part.name == "the group of ranks " + ", ".join(map(str, members))
        same(part.all_reduce(torch.tensor([world.rank])), torch.tensor([sum(members)]))


@CASES
def lists_name_the_parts_which_have_their_ranks_in_order(world: World) -> None:
    n = world.world_size
    part = world.split([list(reversed(range(n)))], name="turned")
    assert part is not None
    assert part.name == "turned"
    assert part.all_gather_object(world.rank) == list(range(n))
    same(part.broadcast(torch.tensor([world.rank]), 0), torch.tensor([0]))
    same(part.scatter(torch.arange(n) if part.rank == 0 else None), torch.tensor([part.rank]))


@CASES
def who_is_in_no_list_is_in_no_part(world: World) -> None:
    last = world.world_size - 1
    part = world.split([[last]])
    assert (part is None) == (world.rank != last)
    if part is not None:
        assert (part.rank, part.world_size) == (0, 1)
        same(part.all_reduce(torch.ones(2)), torch.ones(2))
    assert world.split([]) is None


@CASES
def a_part_can_be_split_and_so_can_its_parts(world: World) -> None:
    ranks = list(range(world.world_size))
    part = world
    while part.world_size > 1:
        smaller = part.split(0 if part.rank + 1 < part.world_size else 1)
        assert smaller is not None
        mine = ranks[:-1] if world.rank in ranks[:-1] else ranks[-1:]
        assert smaller.all_gather_object(world.rank) == mine
        if len(mine) == 1:
            break
        ranks, part = mine, smaller


@CASES
def parts_that_name_a_rank_twice_or_none_are_refused(world: World) -> None:
    n = world.world_size
    for parts in ([[0], [0]], [[0, 0]], [[0], []]):
        error = refusal(lambda parts=parts: world.split(parts))
        assert str(error) == f"split: the parts {parts} name a rank twice, or one is empty"
    for rank in (n, -1, "0", None):
        error = refusal(lambda rank=rank: world.split([[rank]]))
        assert str(error) == (
            f"split: a rank of a part={rank!r} is not a rank of the world,"
            f" which has ranks 0 to {n - 1}"
        )
    same(world.all_reduce(torch.ones(1)), torch.full((1,), float(n)))  # it is still of use


@CASES
def a_mesh_has_a_group_along_each_axis(world: World) -> None:
    n = world.world_size
    mesh = world.mesh({"dp": -1, "tp": 1})
    assert mesh.sizes == {"dp": n, "tp": 1}
    assert mesh.coordinate == {"dp": world.rank, "tp": 0}
    assert mesh["dp"].all_gather_object(world.rank) == list(range(n))
    assert mesh["tp"].all_gather_object(world.rank) == [world.rank]
    assert mesh["dp"].name == "dp"


@CASES
def a_part_that_is_closed_is_of_no_use_and_the_world_is(world: World) -> None:
    part = world.split([list(range(world.world_size))], name="the part")
    assert part is not None
    smaller = part.split(0)
    assert smaller is not None
    part.close()
    part.close()  # twice is no error
    for group in (part, smaller):
        error = refusal(lambda group=group: group.all_reduce(torch.ones(1)))
        assert type(error) is ClosedError
        assert str(error).startswith(f"{group.name} was closed at group_cases.py:")
    same(world.all_reduce(torch.ones(1)), torch.full((1,), float(world.world_size)))
