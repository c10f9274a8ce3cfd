"""The grace belongs to all that a rank has started; after a clean end there is the linger."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SCENARIOS, wait_until
from tests.process.launched import Launched

LEFTOVERS = SCENARIOS / "leftovers.py"
Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.timeout(90)


@pytest.mark.parametrize("kind", ["uploader", "hidden_uploader"])
def test_what_a_rank_leaves_behind_may_finish_and_is_named(
    distrun: Run, tmp_path: Path, kind: str
) -> None:
    result = distrun("launch", "--nproc-per-node", 2, LEFTOVERS, kind)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "uploaded0").read_text() == (tmp_path / "uploaded1").read_text() != ""
    assert "all ranks have ended; python" in result.stderr
    assert "of node0 may go on for 30 s (--linger)" in result.stderr


def test_what_lingers_for_too_long_is_killed_and_named(distrun: Run) -> None:
    result = distrun("launch", "--nproc-per-node", 1, "--linger", 1, LEFTOVERS, "daemon")
    assert result.returncode == 0, result.stderr
    assert "killed what the ranks of node0 had started: python" in result.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_something_lingers_leaves_a_clean_run_clean(
    launched: Callable[..., Launched], signum: signal.Signals
) -> None:
    run = launched("--nproc-per-node", 1, "--linger", "1h", "--grace", 1, LEFTOVERS, "daemon")
    run.wait_for_event("lingering")
    run.process.send_signal(signum)
    code, errors = run.end()
    assert code == 0, errors
    assert "killed what the ranks of node0 had started" in errors


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_child_of_a_wrapper_gets_the_signal_and_what_is_left_of_the_grace(
    launched: Callable[..., Launched], nodes: int
) -> None:
    run = launched("--nodes", nodes, "--nproc-per-node", 2 // nodes, LEFTOVERS, "child_saves")
    run.wait_for("ready0", "ready1")
    run.process.send_signal(signal.SIGTERM)
    code, errors = run.end()
    assert code == 143, errors
    assert (run.cwd / "saved0").exists() and (run.cwd / "saved1").exists()


def test_a_failure_elsewhere_gives_the_grace_to_children_too(
    launched: Callable[..., Launched],
) -> None:
    run = launched("--nproc-per-node", 2, LEFTOVERS, "child_saves")
    run.wait_for("ready0", "ready1")
    ranks = {e["rank"]: e["pid"] for e in run.events() if e["event"] == "rank_started"}
    os.kill(int(str(ranks[1])), signal.SIGKILL)
    code, errors = run.end()
    assert code == 137, errors
    assert (run.cwd / "saved0").exists() and (run.cwd / "saved1").exists()


@pytest.mark.parametrize("kind", ["loader", "wrapped_loader"])
def test_loader_workers_are_left_alone_while_their_parent_lives(
    launched: Callable[..., Launched], kind: str
) -> None:
    run = launched("--nproc-per-node", 1, LEFTOVERS, kind)
    run.wait_for("ready0")
    run.process.send_signal(signal.SIGTERM)
    code, errors = run.end()
    assert code == 143, errors
    assert (run.cwd / "saved0").exists(), errors


def test_what_a_rank_does_last_after_an_exception_has_the_whole_grace(
    distrun: Run, tmp_path: Path
) -> None:
    result = distrun("launch", "--nproc-per-node", 1, LEFTOVERS, "upload_at_exit")
    assert result.returncode == 1, result.stderr
    assert "rank 0 has raised ValueError" in result.stderr
    assert (tmp_path / "saved0").exists()


def test_the_lost_launcher_of_a_run_gives_the_grace_too(launched: Callable[..., Launched]) -> None:
    run = launched("--nproc-per-node", 1, LEFTOVERS, "child_saves")
    run.wait_for("ready0")
    run.process.kill()
    wait_until((run.cwd / "saved0").exists, 20)
    assert run.wait_for_event("ended")["exit_code"] == 143


@pytest.mark.parametrize("stopped", [(), ("forkserver0",)])
def test_nothing_is_left_when_launcher_supervisor_and_agents_are_killed_at_once(
    launched: Callable[..., Launched], stopped: tuple[str, ...]
) -> None:
    faults = SCENARIOS / "faults.py"
    run = launched("--nodes", 2, "--nproc-per-node", 1, faults, "children_and_wait")
    run.wait_for("waiting0", "children1")
    for who in stopped:
        os.kill(run.pid_of(who), signal.SIGSTOP)
    pids = [run.process.pid, *(run.pid_of(who) for who in ("supervisor", "agent0", "agent1"))]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    run.process.wait(10)  # that no process is left is asserted after every test
