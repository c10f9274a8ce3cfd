"""A real run is recorded here from its `launch --json` as where it ran."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distrun.runs.directory import RunDirectory
from tests.conftest import SCENARIOS, only_run
from tests.process.kubernetes_jobs import JOB, NAME, Cluster, Follower
from tests.process.kubernetes_server import ApiServer

pytestmark = pytest.mark.timeout(180)
Run = Callable[..., "subprocess.CompletedProcess[str]"]
FAULTS = SCENARIOS / "faults.py"
TWO_NODES = ("--nodes", 2, "--nproc-per-node", 1, "--time-limit", "90s", "--grace", "1s")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The directory of the container."""
    path = tmp_path / "there"
    path.mkdir()
    return path


def printed(distrun: Run, there: Path, *words: object) -> list[str]:
    """Launch two nodes as the head's container would, and return what it prints."""
    environ = {**os.environ, "DISTRUN_RECORDED_ELSEWHERE": "1"}
    command = ("launch", "--json", *TWO_NODES, *words)
    return distrun(*command, cwd=there, env=environ, timeout_s=120).stdout.splitlines()


def events_in(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def without_notices(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] != "notice"]


def follow(kube: ApiServer, run: RunDirectory, lines: list[str], code: int) -> Follower:
    """Feed the lines through the server's log, with cuts; return at the run's end."""
    cluster, follower = Cluster(kube), Follower(run)
    log = cluster.start()
    log.cuts = [900, 5_000, 70]
    for line in lines:
        log.add(line)
    cluster.end(code)
    assert follower.to_end()["exit_code"] == code
    return follower


def files_of(run: Path, *patterns: str) -> dict[str, str]:
    """Return the files that match, with their content."""
    found = [path for pattern in patterns for path in run.glob(pattern)]
    return {str(path.relative_to(run)): path.read_text() for path in found}


def test_lines_are_numbered_and_the_last_is_the_end(distrun: Run, there: Path) -> None:
    events = [json.loads(line) for line in printed(distrun, there, FAULTS, "exit_3")]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["event"], events[0]["nnodes"]) == ("run", 2)
    assert (events[-1]["event"], events[-1]["exit_code"]) == ("ended", 3)


def test_a_real_failure_is_recorded_here_as_where_it_happened(
    kube: ApiServer, kube_run: RunDirectory, distrun: Run, there: Path
) -> None:
    lines = printed(distrun, there, FAULTS, "raise_error", "--rank", "1")
    follow(kube, kube_run, lines, 1)
    here, original = kube_run.path, only_run(there)
    assert without_notices(events_in(here)) == without_notices(events_in(original))
    same = ("logs/node*/rank*.log", "errors/*.json", "stacks/*", "flight/*", "verdict.json")
    assert files_of(here, *same) == files_of(original, *same)
    assert "errors/rank1.json" in files_of(here, *same)
    assert _times_left_out(here) == _times_left_out(original)
    records = [json.loads((run / "run.json").read_text()) for run in (here, original)]
    for name in ("outcome", "exit_code", "summary", "hint", "attempts", "nnodes", "versions"):
        assert records[0][name] == records[1][name], name
    shown = distrun("show", NAME).stdout
    assert "ValueError: boom of the first rank" in shown
    assert f"job {NAME} of Kubernetes, namespace ml of test" in shown
    listed = json.loads(distrun("ps", "--json").stdout)
    assert [(row["state"], row["exit_code"]) for row in listed] == [("ended", 1)]
    original_logs = distrun("logs", original)
    assert distrun("logs", NAME).stdout == original_logs.stdout
    assert distrun("logs", NAME).stderr == original_logs.stderr


def _times_left_out(run: Path) -> dict[str, list[str]]:
    """Return offsets and streams of the marks of each log: times differ by their rounding."""
    found = files_of(run, "logs/node*/rank*.streams")
    return {
        name: re.findall(r"(?m)^(\d+ (?:stdout|stderr|both)) ", text)
        for name, text in found.items()
    }


def test_the_stacks_and_records_of_a_hang_come_too(
    kube: ApiServer, kube_run: RunDirectory, distrun: Run, there: Path
) -> None:
    words = ("--hang-timeout", "2s", SCENARIOS / "hangs" / "loop.py", "sleep", "--rank", "1")
    lines = printed(distrun, there, *words)
    code = json.loads(lines[-1])["exit_code"]
    follow(kube, kube_run, lines, code)
    evidence = ("stacks/*", "flight/*", "verdict.json")
    assert files_of(kube_run.path, *evidence) == files_of(only_run(there), *evidence)
    assert code == 124
    assert set(files_of(kube_run.path, "stacks/*", "flight/*")) == {
        *(f"stacks/rank{rank}.txt" for rank in (0, 1)),
        *(f"flight/rank{rank}.json" for rank in (0, 1)),
    }
    diagnosed = [distrun("diagnose", run).stdout for run in (kube_run.path, only_run(there))]
    assert diagnosed[0].splitlines()[1:] == diagnosed[1].splitlines()[1:]


def test_who_follows_on_the_command_line_sees_what_the_launch_would_show(
    kube: ApiServer, kube_run: RunDirectory, distrun: Run, there: Path
) -> None:
    lines = ["entrypoint: starting", *printed(distrun, there, FAULTS, "exit_3")]
    log = Cluster(kube).start()
    for line in lines:
        log.add(line)
    Cluster(kube).end(3)
    followed = distrun("logs", "-f", NAME)
    assert followed.stdout.startswith("entrypoint: starting\n")
    assert "failed first: exited with 3" in followed.stderr
    again = [json.loads(line) for line in distrun("logs", "-f", "--json", NAME).stdout.splitlines()]
    assert (again[-1]["event"], again[-1]["exit_code"]) == ("ended", 3)


def test_logs_of_a_run_that_nobody_has_followed_are_read_when_they_are_asked_for(
    kube: ApiServer, kube_run: RunDirectory, distrun: Run, there: Path
) -> None:
    lines = printed(distrun, there, SCENARIOS / "prints.py", "hello")
    log = Cluster(kube).start()
    for line in lines[:-1]:
        log.add(line)
    assert "[1·1] stdout of rank 1\n" in distrun("logs", NAME).stdout
    assert " running " in distrun("ps").stdout
    log.add(lines[-1])
    Cluster(kube).end(0)
    assert "succeeded" in distrun("ps").stdout
    assert "succeeded (exit code 0)" in distrun("show", NAME).stdout


def test_stop_ends_the_job_and_says_how_the_run_ended(
    kube: ApiServer, kube_run: RunDirectory, distrun: Run
) -> None:
    Cluster(kube).start()
    for log in kube.logs.values():
        log.closed = True
    kube.logs.clear()
    stopped = distrun("stop", NAME)
    assert stopped.returncode == 0
    assert "cancelled" in stopped.stderr
    assert any(line.startswith(f"DELETE {JOB}") for line in kube.asked)
    again = distrun("stop", NAME)
    assert again.returncode == 2
    assert "is not running: it is cancelled" in again.stderr
