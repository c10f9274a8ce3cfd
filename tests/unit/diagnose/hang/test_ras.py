"""What NCCL's RAS counts stands beside a verdict, and never makes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from distrun.diagnose.hang.evidence import Witness
from distrun.diagnose.hang.read import record_of
from distrun.diagnose.hang.verdict import explain
from tests.unit.diagnose.hang.jobs import IN_LOAD, PAST, answer, entry, job, rank, waiting

ALL = "world"
SUB = "dp"


def counted(*calls: int, function: str = "AllReduce", name: str = ALL) -> dict[int, Any]:
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


def missing_one() -> dict[int, Witness]:
    """Return a job whose rank 1 has not called the seventh collective."""
    return job(*waiting(0, 2, 3), rank(1, PAST, at=IN_LOAD))


MISSING = {**counted(7)[0], "counts": {}, "is_missing": True}
FAILED = {**counted(7)[0], "has_failed": True}


@pytest.mark.parametrize(
    ("told", "note"),
    [
        (counted(7, 6, 7, 7), "agrees: AllReduce 6 times in rank 1, 7 times in ranks 0,2-3"),
        (counted(1, 0, 1, 1), "agrees: AllReduce not once in rank 1, once in ranks 0,2-3"),
        (counted(7, 7, 6, 7), "counts: AllReduce 6 times in rank 2, 7 times in ranks 0-1,3"),
        (counted(7, 7, 7, 7), "differs: it counts the same calls in ranks 0-3"),
        ({**counted(7, 7, 7, 7), 1: MISSING}, "does not reach rank 1; NCCL's RAS counts the same"),
        ({**counted(7, 6, 7, 7), 3: FAILED}, ": an operation has failed in rank 3; NCCL's RAS agr"),
        ({1: MISSING}, "does not reach rank 1"),
    ],
)
def test_the_note_of_a_verdict_says_what_ras_counts(told: Mapping[int, Any], note: str) -> None:
    alone = explain(missing_one(), idle_s=300)
    found = explain(with_ras(missing_one(), told), idle_s=300)
    said = found.note if note.startswith(":") else found.note.replace("NCCL's RAS ", "", 1)
    assert said.removeprefix("NCCL's RAS").startswith(note)
    assert replace(found, note="") == replace(alone, note="")


def test_without_ras_a_verdict_has_no_note_of_it() -> None:
    assert explain(missing_one(), idle_s=300).note == ""


def test_of_several_communicators_the_one_whose_ranks_differ_is_told() -> None:
    told = counted(9, 9, 9, 9, name=SUB), counted(7, 6, 7, 7), counted(3, 3, name="pair")
    found = explain(with_ras(missing_one(), *told), idle_s=300)
    assert found.note == "NCCL's RAS agrees: AllReduce 6 times in rank 1, 7 times in ranks 0,2-3"


def test_a_call_that_all_ranks_have_made_is_counted_in_all_of_them() -> None:
    ranks = with_ras(job(*waiting(0, 1, 2, 3)), counted(7, 7, 7, 7))
    found = explain(ranks, idle_s=300)
    assert found.kind == "unclear"
    assert found.note == "NCCL's RAS counts the same calls in ranks 0-3"


def test_other_sizes_are_no_matter_of_counts() -> None:
    ranks = job(*waiting(0, 2, 3), rank(1, [*PAST, entry(7, sizes=(5,))]))
    found = explain(with_ras(ranks, counted(7, 7, 7, 7)), idle_s=300)
    assert found.kind == "mismatch"
    assert "NCCL's RAS counts the same calls in ranks 0-3" in found.note


def test_a_job_that_is_at_work_has_no_note_of_ras() -> None:
    found = explain(with_ras(job(rank(0, PAST), rank(1, PAST)), counted(6, 6)), idle_s=None)
    assert not found.is_hang
    assert found.note == ""


@pytest.mark.parametrize("told", [5, [5], [{"counts": 5}], [{"counts": {"A": "x", 1: 2}}], {}])
def test_anything_in_its_place_is_read(told: object) -> None:
    assert all(entry.size == 0 for entry in record_of({**answer(), "ras": told}).ras)
