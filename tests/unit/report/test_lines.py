"""Reading metrics.jsonl: by rank and attempt, whatever its lines hold."""

from __future__ import annotations

import math
from pathlib import Path

from distrun.report.lines import read_numbers
from distrun.runs.directory import RunDirectory
from tests.unit.report.made import T0, made_run, sample, step


def test_values_are_told_apart_by_rank_and_attempt(tmp_path: Path) -> None:
    records = [step(1, 1, loss=3.0), step(1, 1, rank=1, loss=4.0), step(1, 6, loss=5.0)]
    found = read_numbers(made_run(tmp_path, metrics=records), [T0, T0 + 5])
    assert {key: list(line.values) for key, line in found.lines.items()} == {
        ("loss", 0, 0): [3.0],
        ("loss", 1, 0): [4.0],
        ("loss", 0, 1): [5.0],
    }
    assert found.total_steps == 100


def test_a_loss_that_is_no_number_any_more_is_kept(tmp_path: Path) -> None:
    records = [step(1, 1, loss=1.0), step(2, 2, loss="nan"), step(3, 3, loss="inf")]
    (line,) = read_numbers(made_run(tmp_path, metrics=records), [T0]).of("loss")
    assert line.finite == [1.0] and math.isnan(line.values[1]) and line.values[2] == math.inf


def test_the_last_value_is_of_the_lowest_rank_of_the_last_attempt(tmp_path: Path) -> None:
    metrics = [step(9, 1.0, rank=rank, loss=8.0 + rank) for rank in range(4)]
    metrics += [step(12, 7.0, rank=rank, loss=1.5 + rank) for rank in range(3)]
    numbers = read_numbers(made_run(tmp_path, metrics=metrics), [T0, T0 + 5])
    assert numbers.last("loss") == 1.5
    assert numbers.last("accuracy") is None


def test_samples_of_machines_are_no_steps(tmp_path: Path) -> None:
    found = read_numbers(made_run(tmp_path, metrics=[sample(2, 1, cpu_percent=5.0)]), [T0])
    assert not found.lines
    assert list(found.system["cpu_percent", 2, 0].values) == [5.0]


def test_lines_that_are_no_records_are_passed_over(tmp_path: Path) -> None:
    run = made_run(tmp_path, metrics=[step(1, 1, loss=1.0)])
    odd = ["", "[]", "7", "{}", '{"time": "x"}', '{"time": 1e999}', '{"time": 5, "rank": "a"}']
    odd += ['{"time": 5, "rank": 0, "step": 1, "loss": {}}', '{"time": 5, "system": 3}', "[" * 9999]
    odd += ['{"time": 5, "rank": 0, "step": 1, "loss": ' + "9" * 400 + "}"]
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write("\n".join(odd) + '\n{"rank": 0, "st')
    found = read_numbers(run, [T0])
    values = [value for line in found.of("loss") for value in line.values]
    assert values == [1.0, math.inf]


def test_a_run_without_metrics_has_no_numbers(tmp_path: Path) -> None:
    assert not read_numbers(RunDirectory(tmp_path), []).lines
