"""The live line: what is known, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest

from distrun.cli.screen.status import Status

STARTED: list[dict[str, Any]] = [
    {"event": "attempt_started", "nnodes": 2},
    {"event": "node_joined", "joined": 1, "of": 2},
    {"event": "node_joined", "joined": 2, "of": 2},
    {"event": "world_started", "world_size": 4},
    *({"event": "rank_started"} for _ in range(4)),
]


def metrics(step: int, at: float, total_steps: int | None = None, **values: Any) -> dict[str, Any]:
    numbers = {"step": step, "time": at, "total_steps": total_steps, "values": values}
    return {"event": "metrics", "rank": 0, **numbers}


def status_after(*events: dict[str, Any]) -> Status:
    shown = Status()
    for event in events:
        shown.on_event(event)
    return shown


def line_after(*events: dict[str, Any]) -> str:
    """Return the line without its clock, which has tests of its own."""
    return re.sub(r"^\d+:\d\d(:\d\d)? · ", "", status_after(*events).line(200))


@pytest.mark.parametrize(
    ("events", "line"),
    [
        ([], "starting"),
        (STARTED[:1], "nodes 0/2"),
        (STARTED[:2], "nodes 1/2"),
        (STARTED, "nodes 2/2 · ranks 4/4"),
        ([*STARTED, {"event": "rank_ended"}], "nodes 2/2 · ranks 3/4"),
        ([*STARTED, {"event": "stopping"}], "nodes 2/2 · ranks 4/4 · stopping"),
        ([*STARTED, {"event": "of the future"}], "nodes 2/2 · ranks 4/4"),
        ([metrics(3, 0.0)], "starting · step 3"),
        ([metrics(3, 0.0, total_steps=9)], "starting · step 3/9"),
        ([metrics(3, 0.0, loss=1.23456)], "starting · step 3 · loss 1.235"),
        ([metrics(3, 0.0, loss="nan")], "starting · step 3 · loss nan"),
        ([metrics(3, 0.0, samples_per_s=1234.5)], "starting · step 3 · 1234 samples/s"),
        ([metrics(3, 0.0, tokens_per_s=2.6)], "starting · step 3 · 3 tokens/s"),
        ([metrics(3, 0.0, tokens_per_s="inf")], "starting · step 3"),
        ([metrics(3, 0.0, other=1.0)], "starting · step 3"),
        ([metrics(3, 0.0, loss=1.5), metrics(3, 0.0, other=1.0)], "starting · step 3 · loss 1.5"),
        ([metrics(3, 0.0, loss=1.5), metrics(4, 0.0, other=1.0)], "starting · step 4"),
        (
            [metrics(3, 0.0, loss=1.5), {**metrics(7, 0.0, loss=2.5), "rank": 1}],
            "starting · step 3 · loss 1.5",
        ),
    ],
)
def test_events_become_a_line(events: list[dict[str, Any]], line: str) -> None:
    assert line_after(*events) == line


@pytest.mark.parametrize(("now", "left"), [(10.0, "1:30"), (40.0, "1:00"), (1000.0, "0:00")])
def test_the_time_left_follows_the_pace(
    monkeypatch: pytest.MonkeyPatch, now: float, left: str
) -> None:
    monkeypatch.setattr("distrun.cli.screen.status.time.time", lambda: now)
    line = line_after(metrics(10, 0.0, total_steps=110), metrics(20, 10.0, total_steps=110))
    assert line == f"starting · step 20/110 · ETA {left}"


def test_a_restart_forgets_the_numbers_of_the_last_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distrun.cli.screen.status.time.time", lambda: 101.0)
    before = [metrics(50, 0.0, total_steps=99), metrics(60, 10.0, total_steps=99)]
    again = [*STARTED, *before, *STARTED]
    assert line_after(*again) == "nodes 2/2 · ranks 4/4"
    after = [metrics(1, 100.0, total_steps=3), metrics(2, 101.0, total_steps=3)]
    assert line_after(*again, *after).endswith("step 2/3 · ETA 0:01")


def test_a_resumed_counter_that_goes_back_does_not_break_the_pace() -> None:
    line = line_after(metrics(50, 0.0, total_steps=99), metrics(10, 1.0, total_steps=99))
    assert line == "starting · step 10/99"


# --- time and the last word --------------------------------------------------------------

BUSY = [
    {"event": "attempt_started", "nnodes": 2, "time": 1000.0},
    *STARTED[1:],
    metrics(10, 1001.0, total_steps=30, loss=0.25, samples_per_s=1234.0),
    metrics(20, 1005.0, total_steps=30, loss=0.25, samples_per_s=1234.0),
]
BAR = b"val:  40%|####      | 4/10"


@pytest.fixture
def at_1005(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distrun.cli.screen.status.time.time", lambda: 1005.0)


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (200, "0:05 · nodes 2/2 · ranks 4/4 · step 20/30 · loss 0.25 · 1234 samples/s · ETA 0:04"
              " · [0·1] val:  40%|####      | 4/10"),
        (100, "0:05 · ranks 4/4 · step 20/30 · loss 0.25 · ETA 0:04"
              " · [0·1] val:  40%|####      | 4/10"),
        (79, "0:05 · step 20/30 · loss 0.25 · ETA 0:04 · [0·1] val:  40%|####      | 4/10"),
        (60, "0:05 · step 20/30 · loss 0.25 · ETA 0:04 · [0·1] val:  40%|…"),
        (34, "0:05 · step 20/30 · loss 0.25 · E…"),
        (20, "0:05 · step 20/30 ·…"),
        (1, "…"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("at_1005")
def test_what_matters_most_stays_where_the_terminal_is_narrow(columns: int, line: str) -> None:
    status = status_after(*BUSY)
    status.on_output(0, 0, b"epoch 1\nepoch 2\n")
    status.on_bar(0, 0, b"")
    status.on_bar(0, 1, BAR)
    status.on_bar(0, 0, b"")
    assert status.line(columns) == line


@pytest.mark.usefixtures("at_1005")
def test_what_is_missing_stays_and_letters_of_two_columns_count_as_two() -> None:
    status = status_after(*BUSY, {"event": "rank_ended"})
    status.on_output(1, 3, "\x1b[31m学習\x1b[0m 0.5".encode() + b"\r\n\n")
    assert status.line(68) == "0:05 · ranks 3/4 · step 20/30 · loss 0.25 · ETA 0:04 · [1·3] 学習 0…"
    assert status.line(67) == "0:05 · ranks 3/4 · step 20/30 · loss 0.25 · ETA 0:04 · [1·3] 学習 …"


@pytest.mark.parametrize(
    ("block", "word"),
    [(b"a\nb\n", "b"), (b"a\n\n \n", "a"), (b"\n", ""), (b"\xff\n", "\ufffd"),
     (b"\x1b]0;title\x07\x1b[2Kx\n", "x"), (b"x" * 10_000, "x" * 39 + "…")],
)  # fmt: skip
def test_the_last_word_is_the_last_line_that_says_something(block: bytes, word: str) -> None:
    status = status_after({"event": "of this test"})
    status.on_output(0, 0, block)
    assert status.line(51) == f"starting · {word}".removesuffix(" · ")


def test_hours_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distrun.cli.screen.status.time.time", lambda: 8000.0)
    assert status_after({"event": "x", "time": 1000.0}).line(79) == "1:56:40 · starting"
