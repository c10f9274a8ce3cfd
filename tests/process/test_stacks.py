"""`distrun stacks`: where the ranks of a running run are, without an effect on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SCENARIOS, wait_until
from tests.process.launched import Launched

Run = Callable[..., subprocess.CompletedProcess[str]]
AWAITED = SCENARIOS / "awaited.py"
TWO_BY_TWO = ("--nodes", 2, "--nproc-per-node", 2)
LINES = dict(enumerate(AWAITED.read_text().splitlines(), 1))
WAITING = ("while not GO_ON.exists():", "time.sleep(0.2)")
pytestmark = pytest.mark.timeout(110)


@pytest.fixture
def hanging(launched: Callable[..., Launched]) -> Launched:
    """A run of 2 x 2 ranks that wait for rank 3."""
    run = launched(*TWO_BY_TWO, AWAITED, 3)
    run.wait_for("step3_0", "step3_1", "step3_2")
    return run


def asked(distrun: Run) -> dict[str, Any]:
    done = distrun("stacks", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def waits(distrun: Run) -> dict[str, Any]:
    """Ask until the others are in backward: they may be on their way."""
    found: dict[str, Any] = {}

    def are_there() -> bool:
        found.update(asked(distrun))
        return len(found["groups"]) == 2

    wait_until(are_there, 30)
    return found


def pid_of(run: Launched, rank: int) -> int:
    events = (e for e in run.events() if e["event"] == "rank_started" and e["rank"] == rank)
    return int(str(next(events)["pid"]))


def test_the_rank_that_all_wait_for_is_told_with_its_line_and_the_run_goes_on(
    hanging: Launched, distrun: Run, tmp_path: Path
) -> None:
    late, others = waits(distrun)["groups"]
    assert (late["ranks"], others["ranks"]) == ([3], [0, 1, 2])
    assert [call["function"] for call in late["calls"]] == ["<module>", "main", "load"]
    assert LINES[late["calls"][-1]["line"]].strip() in WAITING
    assert "backward()" in LINES[others["calls"][-1]["line"]]
    assert others["called"] == "backward"
    (tmp_path / "go_on").touch()
    assert hanging.process.wait(30) == 0


def test_it_reads_as_who_is_where(hanging: Launched, distrun: Run) -> None:
    waits(distrun)
    done = distrun("stacks")
    lines = done.stdout.splitlines()
    assert lines[0] == "rank 3 on node1"
    assert lines[lines.index("3 of 4 ranks: 0-2") + 2].endswith("main → backward"), done.stdout
    assert "stacks/rank*.txt" in done.stderr


def test_many_who_ask_at_once_are_all_answered_and_no_rank_is_disturbed(
    hanging: Launched, distrun: Run, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: asked(distrun), range(12)))
    assert all(len(found["hosts"]) == 4 and not found["silent"] for found in answers)
    (tmp_path / "go_on").touch()
    assert hanging.process.wait(30) == 0


def test_a_rank_that_is_stopped_is_named_with_its_cure(
    hanging: Launched, distrun: Run, tmp_path: Path
) -> None:
    pid = pid_of(hanging, 1)
    os.kill(pid, signal.SIGSTOP)
    (silent,) = asked(distrun)["silent"]
    assert (silent["rank"], silent["host"]) == (1, "node0")
    assert "SIGCONT lets it go on" in silent["why"]
    os.kill(pid, signal.SIGCONT)
    (tmp_path / "go_on").touch()
    assert hanging.process.wait(30) == 0


def test_a_rank_that_is_no_python_is_said_to_have_no_stacks(
    launched: Callable[..., Launched], distrun: Run, tmp_path: Path
) -> None:
    wrapper = tmp_path / "wrapper.sh"
    wrapper.write_text("#!/bin/sh\ntouch begun$RANK\nexec sleep 600\n")
    wrapper.chmod(0o755)
    run = launched("--nproc-per-node", 1, "--no-python", wrapper)
    run.wait_for("begun0")
    (silent,) = asked(distrun)["silent"]
    assert "is it Python, started by this launcher?" in silent["why"]
    assert run.process.poll() is None


@pytest.mark.long
def test_a_run_that_is_over_or_whose_supervisor_is_stopped_is_refused(
    hanging: Launched, distrun: Run
) -> None:
    supervisor = hanging.pid_of("supervisor")
    os.kill(supervisor, signal.SIGSTOP)
    done = distrun("stacks")
    os.kill(supervisor, signal.SIGCONT)
    assert done.returncode == 3
    assert f"is process {supervisor} stopped?" in done.stderr
    hanging.process.send_signal(signal.SIGTERM)
    assert hanging.end()[0] == 143
    done = distrun("stacks")
    assert done.returncode == 2
    assert "is not running" in done.stderr
    assert distrun("stacks", "nope").returncode == 2
