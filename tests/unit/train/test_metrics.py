"""What a rank reports of a step, and that nothing happens where nobody listens."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest

from distrun.env import REPORT
from distrun.train import metrics


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The end of the pipe from which an agent reads."""
    read, write = os.pipe()
    monkeypatch.setenv(REPORT, f"{write}:{os.fstat(write).st_ino}")
    os.set_blocking(read, False)
    yield read
    for fd in (read, write):
        os.close(fd)


def test_a_step_is_one_line_with_plain_numbers_and_seconds_since_the_epoch(report: int) -> None:
    before = time.time()
    metrics.log(3, total_steps=9, loss=0.5, lr=1, bad=float("nan"), far=float("-inf"))
    after = time.time()
    data = os.read(report, 1 << 16)
    assert data.endswith(b"\n") and data.count(b"\n") == 1
    record = json.loads(data)
    assert before - 0.001 <= record.pop("time") <= after + 0.001
    values = {"loss": 0.5, "lr": 1.0, "bad": "nan", "far": "-inf"}
    assert record == {"report": "metrics", "step": 3, "total_steps": 9, "values": values}


def test_many_values_are_lines_that_no_other_writer_can_tear(report: int) -> None:
    values = {f"loss_of_layer_{n}": n / 7 for n in range(1000)}
    metrics.log(1, **values)
    lines = os.read(report, 1 << 20).splitlines(keepends=True)
    assert 5 < len(lines) < 20 and max(map(len, lines)) <= 4096
    records = [json.loads(line) for line in lines]
    assert {record["step"] for record in records} == {1}
    found = {name: value for record in records for name, value in record["values"].items()}
    assert found == values and list(found) == list(values)


def test_a_name_that_is_too_long_is_refused(report: int) -> None:
    with pytest.raises(ValueError, match="a name of 5000 characters is too long"):
        metrics.log(1, **{"x" * 5000: 1.0})
    with pytest.raises(BlockingIOError):
        os.read(report, 1)


def test_without_a_launcher_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REPORT, raising=False)
    metrics.log(1, loss=0.5)
    with open(os.devnull, "wb") as other:  # a number that now is another file's
        monkeypatch.setenv(REPORT, f"{other.fileno()}:1")
        metrics.log(1, loss=0.5)


def test_an_agent_that_is_gone_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    monkeypatch.setenv(REPORT, f"{write}:{os.fstat(write).st_ino}")
    os.close(read)
    metrics.log(1, loss=0.5)
    os.close(write)
