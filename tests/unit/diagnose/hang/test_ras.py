"""What NCCL's RAS counts stands beside a verdict, and never makes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from distrun.diagnose.hang.evidence import Witness
from distrun.diagnose.hang.read import record_of
from distrun.diagnose.hang.verdict import explain
from tests.unit.diagnose.hang.jobs import IN_LOAD, PAST, answer, entry, job, rank

WORLD, OTHER = "0x6c8 0xab:0xcd", "0x7d9 0xab:0xcd"


def counted(*calls: int, function: str = "AllReduce", name: str = WORLD) -> dict[int, Any]:
    """Return what RAS tells of ranks 0, 1, 2, ... in a communicator of them all."""
    return {
        number: {"communicator": name, "size": len(calls), "counts": {function: count}}
        for number, count in enumerate(calls)
    }


def with_ras(ranks: Mapping[int, Witness], *told: Mapping[int, Any]) -> dict[int, Witness]:
    found = {}
    for number, witness in ranks.items():
        own = [part[number] for part in told if number in part]
        ras = record_of({**answer(), "ras": own}).ras
        record = replace(witness.record, ras=ras) if witness.record else None
        found[number] = replace(witness, record=record)
    return found


def waiting(*ranks: int, op: str = "all_reduce", backend: str = "nccl", **other: Any) -> list[Any]:
    """Return ranks that wait in the seventh collective."""
    own = entry(7, op, profiling_name=f"{backend}:{op}", **other)
    return [rank(each, [*PAST, own]) for each in ranks]


def missing_one(**other: Any) -> dict[int, Witness]:
    """Return a job whose rank 1 has not called the seventh collective."""
    return job(*waiting(0, 2, 3, **other), rank(1, PAST, at=IN_LOAD))


def note_of(ranks: Mapping[int, Witness], *told: Mapping[int, Any]) -> str:
    return explain(with_ras(ranks, *told), idle_s=300).note


MISSING = {**counted(7, 7, 7, 7)[0], "counts": {}, "is_missing": True}
FAILED = {**counted(7, 7, 7, 7)[0], "has_failed": True}


@pytest.mark.parametrize(
    ("told", "note"),
    [
        (
            counted(7, 6, 7, 7),
            "NCCL's RAS agrees: AllReduce 6 times in rank 1, 7 times in ranks 0,2-3",
        ),
        (
            counted(1, 0, 1, 1),
            "NCCL's RAS agrees: AllReduce not once in rank 1, once in ranks 0,2-3",
        ),
        (
            counted(7, 7, 6, 7),
            "NCCL's RAS counts: AllReduce 6 times in rank 2, 7 times in ranks 0-1,3",
        ),
        (counted(7, 7, 7, 7), "NCCL's RAS differs: AllReduce 7 times in ranks 0-3"),
        (
            {**counted(7, 7, 7, 7), 1: MISSING},
            "NCCL's RAS does not reach rank 1; NCCL's RAS counts: AllReduce 7 times in ranks 0,2-3",
        ),
        (
            {**counted(7, 6, 7, 7), 3: FAILED},
            "NCCL's RAS: an operation has failed in rank 3; "
            "NCCL's RAS agrees: AllReduce 6 times in rank 1, 7 times in ranks 0,2-3",
        ),
        ({1: MISSING}, "NCCL's RAS does not reach rank 1"),
        ({}, ""),
    ],
)
def test_the_note_of_a_verdict_says_what_ras_counts(told: Mapping[int, Any], note: str) -> None:
    alone = explain(missing_one(), idle_s=300)
    found = explain(with_ras(missing_one(), told), idle_s=300)
    assert found.note == note
    assert replace(found, note="") == replace(alone, note="")


def test_a_collective_of_gloo_is_no_matter_of_ras() -> None:
    assert note_of(missing_one(backend="gloo"), counted(7, 7, 7, 7)) == ""


def test_only_the_function_of_the_collective_is_compared() -> None:
    assert note_of(missing_one(op="all_gather"), counted(7, 6, 7, 7)).startswith(
        "NCCL's RAS differs: AllGather not once"
    )
    assert note_of(missing_one(op="all_to_all"), counted(7, 6, 7, 7)) == ""


def test_only_the_communicator_of_the_group_is_compared() -> None:
    world, pair = counted(7, 6, 7, 7), counted(3, 4, name=OTHER)
    assert note_of(missing_one(), pair, world).startswith("NCCL's RAS agrees: AllReduce 6 times")
    assert note_of(missing_one(), pair) == ""
    twice = counted(9, 8, 9, 9, name=OTHER)
    assert note_of(missing_one(), world, twice) == "", "either may be that of the group"


def test_a_call_that_all_ranks_have_made_is_counted_in_all_of_them() -> None:
    found = explain(with_ras(job(*waiting(0, 1, 2, 3)), counted(7, 7, 7, 7)), idle_s=300)
    assert found.kind == "unclear"
    assert found.note == "NCCL's RAS counts: AllReduce 7 times in ranks 0-3"


def test_other_sizes_are_no_matter_of_counts() -> None:
    ranks = job(*waiting(0, 2, 3), *waiting(1, sizes=(5,)))
    found = explain(with_ras(ranks, counted(7, 7, 7, 7)), idle_s=300)
    assert found.kind == "mismatch"
    assert found.note.endswith("NCCL's RAS counts: AllReduce 7 times in ranks 0-3")


def test_a_job_that_is_at_work_has_no_note_of_ras() -> None:
    found = explain(with_ras(job(rank(0, PAST), rank(1, PAST)), counted(6, 6)), idle_s=None)
    assert not found.is_hang
    assert found.note == ""


@pytest.mark.parametrize("told", [5, {}, "x", None])
def test_what_is_no_list_in_its_place_is_none(told: object) -> None:
    assert record_of({**answer(), "ras": told}).ras == ()


@pytest.mark.parametrize("told", [5, {}, {"counts": 5, "size": "x"}, {"communicator": []}])
def test_what_is_no_entry_in_it_has_no_counts(told: object) -> None:
    (entry,) = record_of({**answer(), "ras": [told]}).ras
    assert (entry.communicator, entry.size, entry.counts) == ("", 0, {})
