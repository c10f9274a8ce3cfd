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


def test_a_line_that_another_writer_could_tear_is_refused_and_not_written(report: int) -> None:
    values = {f"loss_of_layer_{n}": 0.123456789 for n in range(200)}
    with pytest.raises(ValueError, match=r"200 values take \d+ bytes, the limit is 4096"):
        metrics.log(1, **values)
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
