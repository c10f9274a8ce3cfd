"""Every op does what its name says, and what it does wrong is found and named.

A gloo launch costs 0.3 s, so all ops share one.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import pytest
import torch

from distrun.bench.correctness import Wrong, wrong_elements
from distrun.bench.operations import OPERATIONS, Operation, Wait, Wanted, elements
from distrun.comm import World
from distrun.spec.bench import ITEM_NBYTES, REDOPS
from distrun.testing import faults, run_ranks

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in ITEM_NBYTES}
WITH_DATA = [name for name in OPERATIONS if name != "barrier"]
IN_PLACE = ("all_reduce", "reduce", "broadcast", "all_gather", "reduce_scatter")
LONG = 1000  # bytes: more elements than the values have periods


def every_wanted(name: str, n: int, sizes: Sequence[int]) -> Iterator[Wanted]:
    """Yield all that can be asked of an op; of reductions but sums and means, the essence."""
    redops = REDOPS if OPERATIONS[name].reduces else ("sum",)
    places = (False, True) if name in IN_PLACE else (False,)
    for dtype, redop, nbytes, in_place in product(DTYPES.values(), redops, sizes, places):
        if redop == "mean" and not dtype.is_floating_point:
            continue
        if redop in ("sum", "mean") or (nbytes == LONG and not in_place):
            yield Wanted(nbytes, dtype, redop, n - 1, in_place)


def wrongs(name: str, world: World, sizes: Sequence[int]) -> list[str]:
    """Return what an op gets wrong, of all that can be asked of it."""
    found = []
    checked = 0
    for wanted in every_wanted(name, world.world_size, sizes):
        operation = OPERATIONS[name](world, wanted)
        found += [f"{wanted}: {wrong}" for wrong in wrong_elements(operation, world)]
        checked += operation.expected() is not None
    if not any(world.all_gather_object(checked)):
        found.append("no result was looked at")
    return found


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("name", WITH_DATA)
def test_on_threads_no_element_is_wrong(name: str, n: int) -> None:
    assert run_ranks(lambda world: wrongs(name, world, (1, 72, LONG)), n, timeout_s=30) == [[]] * n


def all_of_it(world: World) -> dict[tuple[str, int], str]:
    """Run every op on two ranks and on three; return what went wrong with each."""
    pair = world.split([[0, 1], [2]])
    assert pair is not None
    found = {}
    for name in WITH_DATA:
        for part in (pair, world):
            if part.world_size > 1:
                try:
                    text = "\n".join(wrongs(name, part, (72, LONG)))
                except Exception:  # its test is to show it; the others go on
                    text = traceback.format_exc()
                found[name, part.world_size] = text
        world.barrier()
    return found


@pytest.fixture(scope="module")
def on_gloo(warm_ranks: None) -> dict[tuple[str, int], str]:
    return run_ranks(all_of_it, 3, backend="gloo", timeout_s=90, comm_timeout_s=20)[0]


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("name", WITH_DATA)
def test_on_gloo_no_element_is_wrong(
    name: str, n: int, on_gloo: dict[tuple[str, int], str]
) -> None:
    assert on_gloo[name, n] == ""


@pytest.mark.parametrize(
    ("op", "nbytes", "dtype", "n", "count"),
    [
        ("all_reduce", 8, "float32", 3, 2),
        ("all_reduce", 11, "float32", 3, 2),
        ("all_reduce", 1, "float64", 3, 1),
        ("broadcast", 7, "bfloat16", 2, 3),
        ("sendrecv", 15, "int64", 2, 1),
        ("all_gather", 64, "float32", 2, 16),
        ("all_gather", 64, "float32", 3, 15),
        ("reduce_scatter", 64, "float32", 3, 15),
        ("gather", 4, "float32", 3, 3),
        ("scatter", 1, "int8", 8, 8),
        ("all_to_all", 100, "uint8", 3, 99),
        ("all_to_all", 64, "float16", 64, 64),
    ],
)
def test_a_size_is_rounded_to_whole_elements_and_to_a_part_for_each_rank(
    op: str, nbytes: int, dtype: str, n: int, count: int
) -> None:
    assert elements(op, nbytes, DTYPES[dtype], n) == count


@pytest.mark.parametrize("op", WITH_DATA)
def test_a_rounded_size_stays_as_it_is(op: str) -> None:
    for nbytes, dtype, n in product(range(1, 200, 7), DTYPES.values(), (2, 3, 8)):
        count = elements(op, nbytes, dtype, n)
        assert elements(op, count * dtype.itemsize, dtype, n) == count


@pytest.mark.parametrize("name", WITH_DATA)
def test_what_moves_nothing_is_found_out(name: str) -> None:
    class Idle(OPERATIONS[name]):  # type: ignore[misc,name-defined]
        def start(self) -> Wait:
            return lambda: None

    def unnoticed(world: World) -> list[Wanted]:
        asked = every_wanted(name, 3, (LONG,))
        return [wanted for wanted in asked if not wrong_elements(Idle(world, wanted), world)]

    assert run_ranks(unnoticed, 3) == [[]] * 3


class Corruption(NamedTuple):
    """An op in which one message is corrupted, and what has to be said of it, on three ranks."""

    op: str
    fault: faults.Fault
    said: list[tuple[int, int, int | None]]
    """Rank, first index, the rank it came from."""


# 96 bytes, so 24 elements of float32; where there are parts, 8 a rank. The root is rank 2.
CORRUPTIONS = {
    "all_reduce": Corruption("all_reduce", faults.corrupt(1), [(1, 0, None)]),
    "reduce": Corruption("reduce", faults.corrupt(2), [(2, 0, None)]),
    "reduce_scatter": Corruption("reduce_scatter", faults.corrupt(1), [(1, 0, None)]),
    "broadcast": Corruption("broadcast", faults.corrupt(0), [(0, 0, 2)]),
    "broadcast's root": Corruption(
        "broadcast", faults.corrupt(2, where="input"), [(0, 0, 2), (1, 0, 2), (2, 0, 2)]
    ),
    "all_gather": Corruption("all_gather", faults.corrupt(1), [(1, 0, 0)]),
    "all_gather's input": Corruption(
        "all_gather", faults.corrupt(1, where="input"), [(0, 8, 1), (1, 8, 1), (2, 8, 1)]
    ),
    "all_to_all": Corruption("all_to_all", faults.corrupt(1), [(1, 0, 0)]),
    "all_to_all's input": Corruption("all_to_all", faults.corrupt(2, where="input"), [(0, 16, 2)]),
    "gather": Corruption("gather", faults.corrupt(2), [(2, 0, 0)]),
    "gather's input": Corruption("gather", faults.corrupt(1, where="input"), [(2, 8, 1)]),
    "scatter": Corruption("scatter", faults.corrupt(1), [(1, 0, 2)]),
    "scatter's root": Corruption("scatter", faults.corrupt(2, where="input"), [(0, 0, 2)]),
    "sendrecv": Corruption("sendrecv", faults.corrupt(0, at=2), [(0, 0, 2)]),
    "sendrecv from rank 0": Corruption("sendrecv", faults.corrupt(1), [(1, 0, 0)]),
    "pingpong's ping": Corruption("pingpong", faults.corrupt(2), [(2, 0, 0)]),
    "pingpong's pong": Corruption("pingpong", faults.corrupt(0, at=2), [(0, 0, 2)]),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_element_is_found_with_its_rank_index_and_source(name: str, dtype: str) -> None:
    op, fault, said = CORRUPTIONS[name]

    def check(world: World) -> list[Wrong]:
        control = world.split([list(range(world.world_size))])
        assert control is not None
        wanted = Wanted(24 * DTYPES[dtype].itemsize, DTYPES[dtype], "sum", 2, False)
        operation: Operation = OPERATIONS[op](world, wanted)
        with fault.on(world):
            return wrong_elements(operation, control)

    for found in run_ranks(check, 3):
        assert [(each.rank, each.first_index, each.source) for each in found] == said
        assert [each.count for each in found] == [1] * len(said)


def test_the_barrier_has_nothing_to_check() -> None:
    def check(world: World) -> tuple[int, list[Wrong]]:
        wanted = Wanted(8, torch.float32, "sum", 0, False)
        operation = OPERATIONS["barrier"](world, wanted)
        return operation.nbytes, wrong_elements(operation, world)

    assert run_ranks(check, 2) == [(0, [])] * 2
