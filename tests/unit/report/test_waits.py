"""The rank that the others wait for is the one that waits least."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrun.diagnose.hang.evidence import Collective, Record, Witness
from distrun.report.lines import Numbers, read_numbers
from distrun.report.waits import Waits, waits_of
from tests.unit.report.made import T0, made_run, step


@pytest.mark.parametrize(
    ("waits", "rank"),
    [
        ({0: 0.030, 1: 0.004, 2: 0.029}, 1),
        ({0: 0.030, 1: 0.029}, None),
        ({0: 0.0003, 1: 0.0}, None),
        ({0: 0.030}, None),
        ({}, None),
        ({0: 0.0, 1: 0.0}, None),
    ],
)
def test_it_is_named_if_the_others_wait_clearly_longer(
    waits: dict[int, float], rank: int | None
) -> None:
    found = Waits(waits).straggler()
    assert (found.rank if found else None) == rank
    if found:
        assert found.sentence.startswith(f"rank {rank} waits least (4 ms a step), the others 29")


def test_what_the_ranks_have_logged_comes_first(tmp_path: Path) -> None:
    records = [step(n, n, rank=rank, wait_s=0.1 * (rank + 1)) for n in (1, 2) for rank in (0, 1)]
    numbers = read_numbers(made_run(tmp_path, metrics=records), [T0])
    waits = waits_of(numbers, {0: 0.5, 1: 0.1}, {}, one_clock=True)
    assert waits.by_rank == {0: pytest.approx(0.1), 1: pytest.approx(0.2)}
    assert "wait_s" in waits.source and not waits.are_shares


def test_then_what_was_seen_while_the_run_went_on() -> None:
    waits = waits_of(Numbers(), {0: 0.31, 1: 0.0123, 2: 0.29}, {}, one_clock=False)
    slow = waits.straggler()
    assert slow and slow.rank == 1
    assert slow.sentence == (
        "rank 1 waits least (1.2 % of the time), the others 30.0 %: they wait for rank 1"
    )
    assert Waits({0: 0.04, 1: 0.0}, are_shares=True).straggler() is None


def witness(rank: int, late_ns: int) -> Witness:
    calls = tuple(
        Collective("0", seq, "all_reduce", done=True, created_ns=10**9 * seq + late_ns)
        for seq in range(1, 8)
    )
    return Witness(rank, "node0", record=Record(collectives=calls))


def test_else_the_times_of_the_recorded_calls_tell() -> None:
    witnesses = {0: witness(0, 0), 1: witness(1, 50_000_000), 2: witness(2, 10_000_000)}
    waits = waits_of(Numbers(), {}, witnesses, one_clock=True)
    assert waits.by_rank == {0: pytest.approx(0.05), 1: 0.0, 2: pytest.approx(0.04)}
    assert waits_of(Numbers(), {}, witnesses, one_clock=False) == Waits()
