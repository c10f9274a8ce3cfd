"""metrics.jsonl keeps every step up to a size, then ever fewer, and says so."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from distrun.runs.files import RunFile
from distrun.supervise.files import AppendFile
from distrun.supervise.metrics_file import MetricsFile

LIMIT = 10_000


class Written:
    """A file that is written to, and what was said meanwhile."""

    def __init__(self, directory: Path, limit_nbytes: int = LIMIT) -> None:
        self.path = directory / "metrics.jsonl"
        self.said: list[str] = []
        self._file = MetricsFile(
            AppendFile(RunFile(directory, ("metrics.jsonl",)), pytest.fail),
            self.said.append,
            limit_nbytes,
        )

    def log(self, step: int, rank: int = 0, **values: float) -> None:
        own = {"rank": rank, "time": 1e9 + step, "step": step, "total_steps": None}
        self._file.write({**values, **own})

    def records(self) -> list[dict[str, Any]]:
        self._file.close()
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def test_below_the_limit_every_step_is_kept_as_it_came(written: Written) -> None:
    for step in range(50):
        written.log(step, loss=0.5)
    records = written.records()
    assert [record["step"] for record in records] == list(range(50))
    assert not written.said and "every" not in records[-1]
    assert list(records[0]) == ["loss", "rank", "time", "step", "total_steps"]


def test_many_steps_take_little_more_than_the_limit_and_reach_to_both_ends(
    written: Written,
) -> None:
    for step in range(300_000):
        written.log(step, loss=0.5)
    records = written.records()
    steps = [record["step"] for record in records]
    assert written.path.stat().st_size < 4 * LIMIT
    assert steps == sorted(steps) and (steps[0], steps[-1]) == (0, 299_999)
    rare = [record for record in records[:-1] if record.get("every", 1) > 100]
    gaps = {b["step"] - a["step"] for a, b in itertools.pairwise(rare)}
    assert rare and gaps <= {record["every"] for record in rare}, "as far apart as they say"


def test_a_value_with_the_name_of_a_field_keeps_its_value(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(AppendFile(RunFile(tmp_path, ("metrics.jsonl",)), pytest.fail), pytest.fail)
    values = {"time": 0.5, "rank": 3.0, "system": 1.0, "kind": 2.0, "kind_": 4.0, "loss": 0.25}
    told = {"rank": 0, "time": 7.0, "step": 1, "total_steps": None, "values": values}
    file.take({"event": "metrics", **told})
    file.close()
    (record,) = map(json.loads, path.read_text().splitlines())
    renamed = {"time_": 0.5, "rank_": 3.0, "system_": 1.0, "kind__": 2.0, "kind_": 4.0}
    renamed["loss"] = 0.25
    assert record == {**renamed, "rank": 0, "time": 7.0, "step": 1, "total_steps": None}


def test_it_is_said_once(written: Written) -> None:
    for step in range(10_000):
        written.log(step, loss=0.5)
    (said,) = written.said
    assert said.startswith("metrics.jsonl has 0 MiB: from here on it keeps one step in 2")


def test_each_rank_is_thinned_by_itself_and_keeps_its_own_last_step(written: Written) -> None:
    for step in range(3001):
        for rank in range(4):
            if rank != 3 or step < 1000:
                written.log(step, rank, loss=0.5)
    records = written.records()
    last = {record["rank"]: record["step"] for record in records}
    assert last == {0: 3000, 1: 3000, 2: 3000, 3: 999}
    counts = [sum(record["rank"] == rank for record in records) for rank in range(3)]
    assert max(counts) - min(counts) <= 10 < min(counts)


def test_evaluations_between_the_steps_are_not_lost_to_a_stride_that_misses_them(
    written: Written,
) -> None:
    for step in range(20_000):
        written.log(step, loss=0.5)
        if step % 100 == 1:
            written.log(step, val_loss=0.5)
    evaluated = [record["step"] for record in written.records() if "val_loss" in record]
    assert len(evaluated) > 10 and evaluated[-1] == 19_901


def test_names_that_change_at_every_step_are_thinned_too(written: Written) -> None:
    for step in range(100_000):
        written.log(step, **{f"loss{step}": 0.5})
    assert written.path.stat().st_size < 20 * LIMIT


def test_a_last_step_that_was_kept_is_not_written_twice(written: Written) -> None:
    for step in range(2001):
        written.log(step, loss=0.5)
    steps = [record["step"] for record in written.records()]
    assert len(steps) == len(set(steps))
