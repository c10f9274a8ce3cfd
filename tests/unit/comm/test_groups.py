"""Meshes and parts of four ranks, and groups that are closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from distrun.comm import ClosedError, CommUsageError, World
from distrun.testing import run_ranks
from tests.unit.comm.collective_cases import refusal, same

pytestmark = pytest.mark.usefixtures("warm_ranks")
BACKENDS = ["threads", "gloo"]


def grid_facts(world: World) -> dict[str, Any]:
    """Return where a rank finds itself on a grid of two by two, and in parts of parts."""
    mesh = world.mesh({"dp": 2, "tp": -1})
    dp, tp = mesh["dp"], mesh["tp"]
    inner = tp.split(tp.rank)
    assert inner is not None
    below = dp.mesh({"x": -1, "y": 1})
    facts = {
        "repr": repr(mesh),
        "coordinate": mesh.coordinate,
        "dp": dp.all_gather_object(world.rank),
        "tp": tp.all_gather(torch.tensor([world.rank])).tolist(),
        "sum over dp, then tp": tp.all_reduce(dp.all_reduce(torch.tensor(world.rank))).item(),
        "names": [dp.name, tp.name, inner.name],
        "inner": inner.all_gather_object(world.rank),
        "below": below["x"].all_gather_object(world.rank),
    }
    if world.backend == "gloo":
        torchs = mesh.device_mesh
        facts["device mesh"] = torchs.mesh.tolist(), torchs.mesh_dim_names, torchs.get_coordinate()
        assert torchs.get_group("tp").size() == 2
    return facts


def names_in_torchs_records(world: World) -> list[str]:
    """Return what torch calls the groups of a mesh, a named part, and one without a name."""
    named, plain = world.split(world.rank % 2, name="stage"), world.split(0)
    assert named is not None and plain is not None
    groups = [world.mesh({"dp": 2, "tp": 1})["dp"], named, plain]
    return [str(each.group.group_desc) for each in groups]


def test_torchs_records_call_a_group_by_its_own_name() -> None:
    assert run_ranks(names_in_torchs_records, 2, "gloo") == [["dp", "stage", "undefined"]] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mesh_puts_neighbours_in_rank_on_its_last_axis(backend: str) -> None:
    for rank, facts in enumerate(run_ranks(grid_facts, 4, backend)):
        row, column = divmod(rank, 2)
        wanted = {
            "repr": "Mesh(dp=2, tp=2)",
            "coordinate": {"dp": row, "tp": column},
            "dp": [column, column + 2],
            "tp": [2 * row, 2 * row + 1],
            "sum over dp, then tp": 6,
            "names": ["dp", "tp", f"the group of ranks {column}"],
            "inner": [rank],
            "below": [column, column + 2],
        }
        if backend == "gloo":
            wanted["device mesh"] = ([[0, 1], [2, 3]], ("dp", "tp"), (row, column))
        assert facts == wanted


def parts_of_parts(world: World) -> list[list[int]]:
    """Split parts of whose ranks only some are in other parts; close one, and make it again."""
    world.split([[0, 1]])
    part = world.split(world.rank % 2)
    assert part is not None
    found, names = [], set()
    for _ in range(2):
        smaller = part.split(0)
        assert smaller is not None
        found.append(smaller.all_gather_object(world.rank))
        if world.backend == "gloo":
            names.add(smaller.group.group_name)  # where its ranks meet, so never the same again
        smaller.close()
    assert len(names) == (2 if world.backend == "gloo" else 0)
    if world.rank % 2:  # torch counts the groups that a rank has made, this one too
        part.split(0)
    whole = world.split([[0, 1, 2, 3]])
    assert whole is not None
    return [*found, whole.all_gather_object(world.rank)]


@pytest.mark.parametrize("backend", ["threads", "gloo"])
def test_a_part_is_split_whatever_other_groups_its_ranks_are_in(backend: str) -> None:
    for rank, found in enumerate(run_ranks(parts_of_parts, 4, backend, timeout_s=30)):
        part = [rank % 2, rank % 2 + 2]
        assert found == [part, part, [0, 1, 2, 3]]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_threads_have_neither_process_groups_nor_a_device_mesh(ranks: int) -> None:
    def ask(world: World) -> list[str]:
        mesh = world.mesh({"dp": -1})
        return [str(refusal(lambda: world.group)), str(refusal(lambda: mesh.device_mesh))]

    for group, device_mesh in run_ranks(ask, ranks):
        assert group.startswith("ranks on threads have no c10d process group")
        assert device_mesh.startswith("ranks that are threads have no DeviceMesh")
        assert group.endswith('hint: backend="gloo"')
        assert device_mesh.endswith('hint: backend="gloo"')


# --- after the end -------------------------------------------------------------------

X = torch.ones(2)
CALLS: dict[str, Callable[[World], object]] = {
    "all_reduce": lambda w: w.all_reduce(X),
    "all_reduce of a tree": lambda w: w.all_reduce([X, X]),
    "all_reduce_": lambda w: w.all_reduce_(X),
    "reduce": lambda w: w.reduce(X),
    "reduce_scatter": lambda w: w.reduce_scatter(X),
    "all_gather": lambda w: w.all_gather(X),
    "gather": lambda w: w.gather(X),
    "scatter": lambda w: w.scatter(X),
    "all_to_all": lambda w: w.all_to_all(X),
    "broadcast": lambda w: w.broadcast(X),
    "send": lambda w: w.send(X, 1 - w.rank),
    "recv": lambda w: w.recv(X, 1 - w.rank),
    "barrier": lambda w: w.barrier(),
    "barrier, async": lambda w: w.barrier(async_op=True),
    "all_gather_object": lambda w: w.all_gather_object(1),
    "gather_object": lambda w: w.gather_object(1),
    "broadcast_object": lambda w: w.broadcast_object(1),
    "scatter_object": lambda w: w.scatter_object([1, 2]),
    "split": lambda w: w.split(0),
    "mesh": lambda w: w.mesh({"dp": -1}),
}


def close_and_call(world: World) -> dict[str, str]:
    """Close the world; return what each call on it, and on a part of it, is answered with."""
    part = world.split([[0, 1]], name="the part")
    assert part is not None
    with world as same_world:
        assert same_world is world
        world.barrier()
    world.close()  # twice is no error
    said = {}
    for name, call in CALLS.items():
        for group in (world, part):
            error = refusal(lambda call=call, group=group: call(group))
            assert type(error) is ClosedError
            said[f"{name} on {group.name}"] = str(error)
    return said


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_closed_group_refuses_every_call_and_says_where_it_was_closed(backend: str) -> None:
    closed_at = close_and_call.__code__.co_firstlineno + 4
    for answers in run_ranks(close_and_call, 2, backend):
        assert len(answers) == 2 * len(CALLS)
        for name, said in answers.items():
            group = name.rpartition(" on ")[2]
            assert said == (
                f"{group} was closed at test_groups.py:{closed_at}\n"
                "  hint: make the call before the end of `with comm.init()`"
            ), name


def test_a_world_that_raises_is_closed_too() -> None:
    def raise_within(world: World) -> str:
        try:
            with world:
                raise KeyError("mine")
        except KeyError:
            return str(refusal(world.barrier))

    assert all("was closed at test_groups.py:" in said for said in run_ranks(raise_within, 2))


def test_a_part_is_not_rebuilt() -> None:
    def rebuild_a_part(world: World) -> None:
        part = world.split(0, name="half")
        assert part is not None
        with pytest.raises(CommUsageError, match=r"half was not made by comm\.init") as refused:
            part.rebuild()
        assert refused.value.hint == "call it on the current world"
        same(part.all_reduce(X), 2 * X)  # nothing has happened to it

    run_ranks(rebuild_a_part, 2)
