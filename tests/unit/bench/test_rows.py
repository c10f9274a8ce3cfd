"""Which rows a request has, and what is told of each."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distrun.bench.measure import QUEUED, measure
from distrun.bench.operations import OPERATIONS, Wanted
from distrun.bench.request import Request
from distrun.bench.rows import Rows
from distrun.comm import World
from distrun.testing import faults, run_ranks

Line = dict[str, Any]
SMALL: dict[str, Any] = {
    "ops": ("all_reduce",),
    "sizes": (8, 64),
    "dtype": "float32",
    "redop": "sum",
    "root": 0,
    "places": ("out", "in"),
    "mode": "latency",
    "iterations": 3,
    "warmup": 1,
    "check": True,
    "budget_s": 30.0,
    "backend": None,
    "timeout_s": 10.0,
}


def lines(n: int = 2, largest: int = 1 << 30, **changes: Any) -> list[Line]:
    """Return what is told of a request, which all ranks have to tell alike."""
    request = Request(**{**SMALL, **changes})
    told = run_ranks(lambda world: list(Rows(request, world, world, largest).measure()), n)
    assert all(each == told[0] for each in told)
    return told[0]


def rows(told: list[Line]) -> list[Line]:
    return [line for line in told if line["bench"] == "row"]


def test_there_is_a_row_for_each_op_size_and_place_in_the_order_asked_for() -> None:
    told = rows(lines(ops=("broadcast", "all_reduce")))
    assert [(row["op"], row["nbytes"], row["place"]) for row in told] == [
        (op, size, place)
        for op in ("broadcast", "all_reduce")
        for size in (8, 64)
        for place in ("out", "in")
    ]


@pytest.mark.parametrize("op", ["all_to_all", "gather", "scatter", "sendrecv", "pingpong"])
def test_an_op_with_two_buffers_by_nature_has_no_in_place(op: str) -> None:
    assert [row["place"] for row in rows(lines(ops=(op,)))] == ["out", "out"]


@pytest.mark.parametrize(
    ("op", "n", "sizes", "measured"),
    [
        ("all_reduce", 2, (8, 9, 10, 11, 12), [8, 12]),
        ("all_gather", 3, (4, 8, 12, 16, 24), [12, 24]),
        ("all_gather", 2, (1, 2, 4, 8), [8]),
        ("reduce_scatter", 3, (64, 65, 72), [60, 72]),
        ("sendrecv", 2, (5, 4), [4]),
    ],
)
def test_sizes_that_round_to_the_same_are_measured_once(
    op: str, n: int, sizes: tuple[int, ...], measured: list[int]
) -> None:
    told = rows(lines(n, ops=(op,), sizes=sizes, places=("out",)))
    assert [row["nbytes"] for row in told] == measured
    assert [row["count"] * 4 for row in told] == measured


def test_a_barrier_is_one_row_without_size_and_bandwidth() -> None:
    (row,) = lines(ops=("barrier",))
    assert (row["op"], row["nbytes"], row["count"]) == ("barrier", 0, 0)
    for name in ("algbw", "busbw", "best_busbw", "wire", "wrong", "redop", "root"):
        assert row[name] is None
    assert 0 < row["min_s"] <= row["p50_s"] <= row["max_s"]


def test_what_is_too_large_is_left_out_and_says_why() -> None:
    told = lines(largest=1 << 20, sizes=(8, 1 << 20, 2 << 20), places=("out",))
    assert [line["nbytes"] for line in rows(told)] == [8, 1 << 20]
    (left_out,) = (line for line in told if line["bench"] == "skipped")
    assert (left_out["op"], left_out["nbytes"]) == ("all_reduce", 2 << 20)
    assert left_out["why"].startswith("above 1 MiB")


@pytest.mark.parametrize(
    ("asked", "budget_s", "done"),
    [(50, 1e-6, 5), (50, 30.0, 50), (3, 1e-6, 3), (1, 30.0, 1), (100, 30.0, 100)],
)
def test_a_budget_cuts_iterations_but_not_below_five(
    asked: int, budget_s: float, done: int
) -> None:
    (row,) = rows(lines(iterations=asked, budget_s=budget_s, sizes=(64,), places=("out",)))
    assert row["iterations"] == len(row["times_s"]) == done
    assert (row["p99_s"] is None) is (done < 100)


@pytest.mark.parametrize(("mode", "at_once"), [("latency", 1), ("throughput", QUEUED)])
def test_a_row_is_cut_short_to_fit_the_budget(mode: str, at_once: int) -> None:
    asked = {"mode": mode, "budget_s": 0.5, "iterations": 5000, "warmup": 0, "check": False}
    (row,) = rows(lines(sizes=(4 << 20,), places=("out",), **asked))
    assert row["iterations"] == len(row["times_s"]) < 5000 / at_once  # which would take seconds


def test_a_model_follows_the_last_row_of_an_op_that_has_one() -> None:
    sizes = (64, 1 << 16, 1 << 20, 4 << 20)
    told = lines(ops=("all_reduce", "barrier", "broadcast"), sizes=sizes, places=("out",))
    assert [(line["bench"], line["op"]) for line in told] == [
        *[("row", "all_reduce")] * 4,
        ("fit", "all_reduce"),
        ("row", "barrier"),
        *[("row", "broadcast")] * 4,
        ("fit", "broadcast"),
    ]
    for line in told:
        if line["bench"] == "fit":
            assert line["bytes_per_s"] > 0
            assert line["alpha_s"] >= 0


def test_two_sizes_have_no_model() -> None:
    assert [line["bench"] for line in lines()] == ["row"] * 4


def test_bandwidths_come_from_the_median_and_the_best_from_the_fastest() -> None:
    (row,) = rows(lines(3, ops=("all_gather",), sizes=(1200,), places=("out",), iterations=9))
    assert row["algbw"] == pytest.approx(1200 / row["p50_s"])
    assert row["busbw"] == pytest.approx(1200 / row["p50_s"] * 2 / 3)
    assert row["best_busbw"] == pytest.approx(1200 / row["min_s"] * 2 / 3)
    assert row["wire"] is None


def test_where_ranks_span_nodes_a_row_tells_what_one_nic_carries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    told = rows(lines(4, ops=("all_reduce", "sendrecv"), sizes=(64,), places=("out",)))
    assert told[0]["wire"] == pytest.approx(told[0]["busbw"] / 3)
    assert told[1]["wire"] is None  # a neighbour's message crosses one wire, or none


def test_the_time_of_an_iteration_is_the_slowest_ranks_and_half_of_a_round_trip() -> None:
    def late(world: World) -> list[float]:
        control = world.split([[0, 1, 2]])
        assert control is not None
        operation = OPERATIONS["pingpong"](world, Wanted(64, torch.float32, "sum", 0, False))
        with faults.delay(2, 0.2).on(world):
            return measure(operation, control, "latency", 3, warmup=0).seconds

    told = run_ranks(late, 3)
    assert told == [told[0]] * 3  # rank 1 only looks on
    assert 0.1 <= told[0][0] < 0.2
    assert max(told[0][1:]) < 0.1


@pytest.mark.parametrize(
    ("op", "redop", "root"),
    [
        ("all_reduce", "max", None),
        ("reduce", "max", 1),
        ("reduce_scatter", "max", None),
        ("broadcast", None, 1),
        ("gather", None, 1),
        ("all_gather", None, None),
        ("pingpong", None, None),
    ],
)
def test_a_row_names_the_reduction_and_the_root_where_it_has_them(
    op: str, redop: str | None, root: int | None
) -> None:
    for row in rows(lines(ops=(op,), redop="max", root=1)):
        assert (row["redop"], row["root"], row["wrong"]) == (redop, root, [])


def test_a_row_that_is_not_checked_says_so() -> None:
    assert [row["wrong"] for row in rows(lines(check=False))] == [None] * 4


def test_a_wrong_element_stands_in_its_row_with_its_rank() -> None:
    request = Request(**{**SMALL, "sizes": (64,), "places": ("out",)})

    def check(world: World) -> list[Line]:
        control = world.split([[0, 1]])
        assert control is not None
        with faults.corrupt(1).on(world):
            return list(Rows(request, world, control, 1 << 30).measure())

    for (row,) in run_ranks(check, 2):
        assert row["wrong"] == [{"rank": 1, "count": 1, "first_index": 0, "source": None}]
