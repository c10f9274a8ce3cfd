"""The numbers of a run as a table, and a few of its losses."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from distrun.report.loss_points import loss_points
from distrun.report.table import columns_of, rows_of, write_csv, write_parquet
from distrun.runs.directory import RunDirectory
from tests.unit.report.made import T0, made_run, sample, step

RECORDS = [step(1, 1, loss=3.0, lr=0.1), step(1, 6, rank=1, loss="nan"),
           sample(0, 7, cpu_percent=5.0)]  # fmt: skip


def test_a_row_for_each_record(tmp_path: Path) -> None:
    run = made_run(tmp_path, metrics=RECORDS)
    out = io.StringIO()
    columns = columns_of(run)
    assert columns[-3:] == ["loss", "lr", "cpu_percent"]
    assert write_csv(rows_of(run, [T0, T0 + 5]), columns, out) == 3
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [(row["kind"], row["rank"], row["attempt"], row["loss"]) for row in rows] == [
        ("step", "0", "1", "3.0"),
        ("step", "1", "2", "nan"),
        ("system", "", "2", ""),
    ]


def test_one_call_with_many_values_is_one_row(tmp_path: Path) -> None:
    parts = [step(1, 1, loss=3.0), step(1, 1, lr=0.1), step(1, 1, rank=1, lr=0.1), step(2, 2, lr=1)]
    (first, *rest) = rows_of(made_run(tmp_path, metrics=parts), [T0])
    assert (first["loss"], first["lr"], len(rest)) == (3.0, 0.1, 2)


def test_the_parts_of_calls_of_two_ranks_may_come_in_turn(tmp_path: Path) -> None:
    parts = [step(1, 1, rank=r, **{name: 0.5}) for name in ("loss", "lr") for r in (0, 1)]
    rows = [*rows_of(made_run(tmp_path, metrics=parts), [T0])]
    assert [(row["rank"], row["loss"], row["lr"]) for row in rows] == [(0, 0.5, 0.5), (1, 0.5, 0.5)]


def test_a_record_whose_step_is_no_number_is_no_row(tmp_path: Path) -> None:
    parts = [step(1, 1, loss=3.0), {**step(2, 2, loss=2.0), "step": 10**23}]
    assert len([*rows_of(made_run(tmp_path, metrics=parts), [T0])]) == 1


def test_parquet_has_the_same_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    run = made_run(tmp_path, metrics=RECORDS)
    assert write_parquet(rows_of(run, [T0]), columns_of(run), tmp_path / "run.parquet") == 3
    table = parquet.read_table(tmp_path / "run.parquet").to_pylist()
    assert table[0]["loss"] == 3.0 and table[0]["step"] == 1 and table[2]["rank"] is None


@pytest.mark.parametrize("count", [1, 5, 1000])
def test_losses_are_spread_over_the_run_and_end_with_the_last(tmp_path: Path, count: int) -> None:
    metrics = [
        record
        for n in range(1, count + 1)
        for record in (step(n, n, loss=float(n)), sample(0, n, cpu_percent=1.0))
    ]
    found = loss_points(made_run(tmp_path, metrics=metrics), 10)
    assert found == sorted(found) and found[-1] == count and 1 <= len(found) <= 11
    assert found[0] <= 2


def test_losses_are_those_of_one_rank(tmp_path: Path) -> None:
    metrics = [step(n, n, rank=r, loss=n + 100.0 * r) for n in range(1, 60) for r in (1, 0, 2)]
    found = loss_points(made_run(tmp_path, metrics=metrics), 10)
    assert max(found) < 100 and found[-1] == 59
    foreign = [step(1, 1, rank=rank, loss=1.0) for rank in ("a", None, [], 2)]
    assert loss_points(made_run(tmp_path / "foreign", metrics=foreign), 10)


def test_a_run_without_a_loss_has_no_points(tmp_path: Path) -> None:
    assert loss_points(made_run(tmp_path), 10) == []
    assert loss_points(RunDirectory(tmp_path / "none"), 10) == []
