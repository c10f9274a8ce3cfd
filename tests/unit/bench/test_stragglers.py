"""The late rank is the one that waits least; and what a matmul beside a collective costs."""

from __future__ import annotations

import time

import pytest
import torch

from distrun.bench import overlap, stragglers
from distrun.bench.operations import OPERATIONS, Wanted
from distrun.comm import World
from distrun.testing import run_ranks
from tests.unit.bench.test_pairs import REQUEST


@pytest.mark.parametrize(
    ("waits_ms", "late"),
    [
        ([33.0, 36.0, 14.0, 37.0], 2),
        ([20.3, 0.1, 20.4], 1),
        ([0.5, 0.4, 0.45], None),  # nobody stands out
        ([0.9, 0.1, 0.8], None),  # less than a millisecond
        ([21.0, 20.0, 22.0], None),  # less than twice
        ([5.0], None),
    ],
)
def test_the_rank_that_waits_least_is_late(waits_ms: list[float], late: int | None) -> None:
    assert stragglers.latest([wait / 1000 for wait in waits_ms]) == late


@pytest.mark.usefixtures("warm_ranks")
def test_a_rank_that_lags_20_ms_is_named() -> None:
    def fn(world: World) -> dict[str, object]:
        def work() -> None:
            if world.rank == 1:
                time.sleep(0.02)  # to be late by as much

        return stragglers.measure(REQUEST, world, world, work)

    found = run_ranks(fn, 3, "gloo", check=False)[0]
    assert found["late"] == 1
    assert found["by_s"] > 0.01


@pytest.mark.usefixtures("warm_ranks")
def test_a_row_beside_a_matmul_tells_what_both_lose() -> None:
    def fn(world: World) -> dict[str, float]:
        wanted = Wanted(1 << 16, torch.float32, "sum", 0, in_place=True)
        row = OPERATIONS["all_reduce"](world, wanted)
        return overlap.beside_matmul(row, REQUEST, world, 5, alone_p50_s=1e-4)

    found = run_ranks(fn, 2, "gloo", check=False)[0]
    assert found["p50_s"] > 0
    assert found["collective_loss"] == pytest.approx(1 - 1e-4 / found["p50_s"])
    assert found["matmul_loss"] < 1
