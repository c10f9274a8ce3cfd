"""What is recorded of runs: read to the end, and removed when there is too much of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from distrun.api import runs
from distrun.errors import UsageError
from distrun.runs import directory, record
from distrun.runs.directory import RunDirectory
from distrun.runs.place import here
from distrun.runs.record import RunRecord

Make = Callable[..., RunDirectory]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Record a run that was started here; it is over, or its supervisor is on another host."""

    def make(run_id: str, started_at: float = 1.0, **fields: Any) -> RunDirectory:
        run = directory.create(tmp_path, run_id)
        place = {**asdict(here()), "ended_at": 2.0, **fields}
        record.write(run, replace(RunRecord(run_id, "t.py", 1, 1, started_at), **place))
        return RunDirectory(run.path)

    return make


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 9])
def test_the_newest_runs_that_are_over_stay_and_running_ones_do_not_count(
    tmp_path: Path, make: Make, keep: int
) -> None:
    make("running", 4e9, ended_at=None, host="elsewhere")
    for number in range(3):
        make(f"r{number}", float(number))
    removed = runs.prune(tmp_path, keep)
    assert removed == ["r2", "r1", "r0"][keep:]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"running", "r0", "r1", "r2"} - set(removed)


def test_a_run_without_a_supervisor_here_is_not_stopped(make: Make) -> None:
    with pytest.raises(UsageError, match="run r1 is not running: it has ended"):
        runs.stop(make("r1"))
    with pytest.raises(UsageError, match="is not running: it is lost"):
        runs.stop(make("r2", ended_at=None))
    elsewhere = make("r3", 4e9, ended_at=None, host="elsewhere")
    with pytest.raises(UsageError, match="running on elsewhere: it cannot be stopped from here"):
        runs.stop(elsewhere)


def test_events_are_read_whole_and_torn_ones_are_passed_over(make: Make) -> None:
    run = make("r1")
    text = '{"event": "a"}\n{"eve\n[1]\n{"event": 5}\n' + "[" * 100_000 + '\n{"event": "b"}\n{"ev'
    run.events.path.write_text(text)
    assert [event["event"] for event in runs.events(run, follow=False)] == ["a", "b"]
    # its record has an end, of which no event was kept
    followed = list(runs.events(run, follow=True))
    assert [event["event"] for event in followed] == ["a", "b", "ended"]
    assert followed[-1]["time"] == record.read(run).ended_at


def test_events_that_are_written_until_the_end_are_all_followed(make: Make) -> None:
    """The run ends between two looks: at its events, and at its record."""
    run = make("r1", 4e9, ended_at=None, host="elsewhere")
    run.events.path.write_text('{"event": "a"}\n')
    following = runs.events(run, follow=True)
    assert [next(following), next(following)] == [{"event": "a"}, {}]
    ended, opened = replace(record.read(run), ended_at=2.0), os.open

    def ending(path: Any, *words: Any, **names: Any) -> int:
        if path == "run.json":
            patch.undo()
            with run.events.path.open("a") as file:
                file.write('{"event": "ended"}\n')
            record.write(run, ended)
        return opened(path, *words, **names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", ending)
        assert list(following) == [{"event": "ended"}]


def test_a_run_that_has_no_events_has_none(make: Make) -> None:
    run = make("r1")
    assert list(runs.events(run, follow=False)) == []
    run.events.path.symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match=r"events\.jsonl cannot be read: "):
        list(runs.events(run, follow=False))


@pytest.mark.parametrize(
    ("text", "found"),
    [('{"rank": 3}', {"rank": 3}), ("[3]", None), ("{", None), (None, None)],
)
def test_a_verdict_is_a_table_or_none(make: Make, text: str | None, found: object) -> None:
    run = make("r1")
    if text is not None:
        run.verdict.path.write_text(text)
    assert runs.verdict(run) == found
    assert json.loads(run.record.path.read_text())["run_id"] == "r1"
