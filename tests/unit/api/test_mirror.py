"""Lines of a container's log become a run directory, each once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distrun.api.mirror import Mirror, open_mirror
from distrun.runs import directory, record
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord

pytestmark = pytest.mark.timeout(20)
TIME = "2026-11-29T13:00:00.{:09d}Z"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    made = directory.create(tmp_path, "r")
    record.write(made, RunRecord("r", "train.py", 2, 0, 1.0, job={"on": "compose"}))
    return made


@pytest.fixture
def mirror(run: RunDirectory) -> Mirror:
    opened = open_mirror(run)
    assert opened is not None
    opened.read_from("pod/0")
    return opened


def stamped(text: str, at: int = 0) -> bytes:
    return f"{TIME.format(at)} {text}".encode()


def output(seq: int, line: object, **changed: Any) -> str:
    event = {"event": "output", "time": 5.0, "node": 0, "rank": 0, "stream": "stdout"}
    return json.dumps({**event, "line": line, **changed, "seq": seq})


def log_of(run: RunDirectory) -> str:
    return run.log(0, 0).path.read_text()


def test_lines_that_come_again_after_a_cut_are_taken_once(
    mirror: Mirror, run: RunDirectory
) -> None:
    lines = [stamped("hello", 1), stamped("hello", 1), stamped(output(1, "a"), 2)]
    assert mirror.take(lines) == ["hello", "hello"]
    more = [*lines, stamped("hello", 2), stamped(output(2, "b"), 3)]
    mirror.read_from("pod/0")
    assert mirror.take(more) == ["hello"]
    mirror.read_from("pod/0")
    assert mirror.take(more[1:]) == []
    assert log_of(run) == "a\nb\n"
    assert run.batch_log.path.read_text() == "hello\n" * 3


def test_a_clock_of_the_node_that_goes_back_loses_nothing(
    mirror: Mirror, run: RunDirectory
) -> None:
    mirror.take([stamped(output(1, "a"), 9), stamped(output(2, "b"), 3)])
    assert mirror.since == "2026-11-29T13:00:00Z"
    mirror.read_from("pod/0")
    mirror.take([stamped(output(2, "b"), 3), stamped(output(3, "c"), 2), stamped("late", 4)])
    assert log_of(run) == "a\nb\nc\n"


@pytest.mark.parametrize(
    ("time", "since"),
    [
        ("2026-11-29T15:00:00.5+02:00", "2026-11-29T13:00:00Z"),
        ("2026-11-29T09:30:59.999999999-03:30", "2026-11-29T13:00:59Z"),
        ("2026-11-29T13:00:01Z", "2026-11-29T13:00:01Z"),
    ],
)
def test_the_time_of_a_line_may_be_of_any_zone(mirror: Mirror, time: str, since: str) -> None:
    mirror.take([f"{time} hello".encode()])
    assert mirror.since == since


def test_what_was_written_after_the_last_checkpoint_is_read_again(
    mirror: Mirror, run: RunDirectory
) -> None:
    lines = [stamped(output(seq, seq), seq) for seq in range(1, 9)]
    mirror.take(lines[:4])
    mirror.checkpoint()
    mirror.take(lines[4:6])
    mirror.close()  # as a kill would: without a checkpoint
    again = open_mirror(run)
    assert again is not None
    assert log_of(run) == "1\n2\n3\n4\n"
    again.read_from("pod/0")
    again.take(lines[2:])
    assert log_of(run) == "".join(f"{n}\n" for n in range(1, 9))


def test_only_one_process_writes(mirror: Mirror, run: RunDirectory) -> None:
    assert open_mirror(run) is None
    mirror.close()
    assert open_mirror(run) is not None


HOSTILE = [
    "",
    "{",
    "{}",
    "[1]",
    '{"event": 7, "seq": 1}',
    '{"event": "output"}',
    '{"event": "output", "node": "../..", "rank": 0, "stream": "stdout", "line": "x"}',
    '{"event": "output", "node": 0, "rank": -1, "stream": "stdout", "line": "x"}',
    '{"event": "output", "node": 0, "rank": true, "stream": "stdout", "line": "x"}',
    '{"event": "output", "node": 0, "rank": 0, "stream": "../x", "line": "x"}',
    '{"event": "rank_started", "node": 99999999999999999999, "rank": 0}',
    '{"event": "ended", "outcome": "succeeded"}',
    '{"event": "ended", "outcome": "x", "exit_code": "0", "attempts": 1, "summary": "", "hint": 1}',
    '{"event": "run", "nnodes": "2"}',
    '{"event": "world_started", "nnodes": 0, "world_size": 2}',
    '{"event": "metrics", "rank": 0, "values": 7}',
    '{"event": "file", "path": "../../x", "text": "x", "last": true}',
    '{"event": "file", "path": "run.json", "text": "x", "last": true}',
    '{"event": "rank_ended", "exit_code": 1, "report": "boom", "node": 0, "rank": 0}',
    "[" * 100_000,
    "\x00\x1b[31m\udcff",
]


@pytest.mark.parametrize("line", HOSTILE)
def test_a_line_that_is_no_event_is_kept_as_it_is(
    mirror: Mirror, run: RunDirectory, line: str
) -> None:
    before = record.read(run)
    data = line.encode(errors="surrogateescape")
    words = mirror.take([TIME.format(1).encode() + b" " + data])
    mirror.take([stamped(output(1, "still there"), 2)])
    assert words == [data.decode(errors="replace")]
    assert log_of(run) == "still there\n"
    assert record.read(run) == before
    assert {path.name for path in run.path.parent.iterdir()} == {"r"}


def test_times_that_are_no_times_leave_the_record_readable(
    mirror: Mirror, run: RunDirectory
) -> None:
    end = {"outcome": "failed", "exit_code": 1, "summary": "", "hint": "", "attempts": 1}
    for seq, time in enumerate((float("nan"), float("inf"), -1, "now", None), 1):
        event = {"event": "ended", "time": time, **end, "verdict": None, "seq": seq}
        mirror.take([stamped(json.dumps(event), seq)])
        found = record.read(run)
        assert (found.outcome, found.state) == ("failed", "ended")


def test_a_file_of_evidence_comes_in_parts(mirror: Mirror, run: RunDirectory) -> None:
    for seq, (text, last) in enumerate((("one ", False), ("two", True)), 1):
        event = {"event": "file", "path": "stacks/rank3.txt", "text": text, "last": last}
        mirror.take([stamped(json.dumps({**event, "seq": seq}), seq)])
    assert run.stacks(3).path.read_text() == "one two"


def test_another_container_is_the_next_attempt(mirror: Mirror, run: RunDirectory) -> None:
    end = {"outcome": "failed", "exit_code": 1, "summary": "s", "hint": "", "attempts": 2}
    ended = json.dumps({"event": "ended", "time": 9.0, **end, "verdict": {"rank": 0}, "seq": 2})
    mirror.take([stamped(output(1, "a"), 1), stamped(ended, 2)])
    assert record.read(run).attempts == 2
    assert mirror.read_from("other/0")
    found = record.read(run)
    assert (found.state, found.attempts, found.exit_code) == ("submitted", 3, None)
    assert json.loads(run.verdict.path.read_text()) is None
    mirror.take([stamped(output(1, "a"), 1)])
    assert log_of(run) == "a\n--- distrun: attempt 3 begins ---\na\n"


def test_an_attempt_that_nobody_followed_is_counted(mirror: Mirror, run: RunDirectory) -> None:
    mirror.read_from("other/0", attempts=4)
    assert record.read(run).attempts == 5
