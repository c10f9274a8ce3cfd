"""`distrun launch --hosts` over an ssh that leads back to this machine: no root is needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import only_run, wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]
FAKES = Path(__file__).parents[1] / "fakes"
TWO = ("--hosts", "localhost,127.0.0.1", "--nproc-per-node", "1", "--no-check")
SCRIPT = """
import os, sys, time
import torch, torch.distributed as dist

dist.init_process_group("gloo")
dist.all_reduce(torch.ones(1))
open(f"rank{os.environ['RANK']}", "w").write(sys.argv[1])
if sys.argv[1] == "raise":
    raise ValueError("bad")
if sys.argv[1] == "wait":
    time.sleep(600)
dist.destroy_process_group()
"""
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose ssh is ours, in a directory with train.py."""
    (tmp_path / "train.py").write_text(SCRIPT)
    return {**os.environ, "PATH": f"{FAKES / 'ssh'}:{os.environ['PATH']}"}


def record(cwd: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((only_run(cwd) / "run.json").read_text())
    return found


def test_each_host_has_an_agent_behind_its_own_connection(
    distrun: Run, environ: dict[str, str], tmp_path: Path
) -> None:
    done = distrun("launch", *TWO, "train.py", "a 'b' $c", env=environ, timeout_s=100)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rank1").read_text() == "a 'b' $c"
    nodes = record(tmp_path)["plan"]["nodes"]
    assert [node["command"][0] for node in nodes] == ["ssh", "ssh"]


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_a_failing_rank_is_told_as_on_one_machine(
    distrun: Run, environ: dict[str, str], start_method: str
) -> None:
    words = (*TWO, "--start-method", start_method, "train.py", "raise")
    done = distrun("launch", *words, env=environ, timeout_s=100)
    assert done.returncode == 1
    assert "failed first: ValueError: bad" in done.stderr


def end_of_agent(tmp_path: Path, kill: Callable[[dict[str, Any]], int]) -> dict[str, Any]:
    """Kill a process of the second node when its rank has begun; return its start event."""
    wait_until((tmp_path / "rank1").exists, 60)
    lines = (only_run(tmp_path) / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    started = next(e for e in events if e["event"] == "node_stage" and e["node"] == 1)
    os.kill(kill(started), signal.SIGKILL)
    return started


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("kill", "why"),
    [
        (lambda event: event["pid"], "127.0.0.1: its agent was killed by SIGKILL"),
        (lambda event: parent_of(event["pid"]), ""),
    ],
    ids=["agent", "what is above it"],
)
def test_a_killed_agent_is_told_from_a_lost_connection(
    launched: Callable[..., Any],
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kill: Callable[[dict[str, Any]], int],
    why: str,
) -> None:
    monkeypatch.setenv("PATH", environ["PATH"])
    run = launched(*TWO, "--grace", "3", "train.py", "wait")
    end_of_agent(tmp_path, kill)
    if not why:  # the agent goes on without it: it ends with its connection
        run.process.send_signal(signal.SIGTERM)
    _, stderr = run.process.communicate(timeout=60)
    assert run.process.returncode == (5 if why else 143), stderr
    assert why in stderr


def test_what_cannot_start_there_is_told_with_the_host(
    distrun: Run, environ: dict[str, str]
) -> None:
    done = distrun("launch", *TWO, "--workdir", "/no/such", "train.py", "x", env=environ)
    assert done.returncode == 3
    assert "the agent cannot be started on" in done.stderr
    assert "/no/such: No such file or directory" in done.stderr


def test_a_dry_run_reaches_nobody(distrun: Run, environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ssh").write_text("#!/bin/sh\ntouch called\n")
    (tmp_path / "ssh").chmod(0o755)
    environ["PATH"] = f"{tmp_path}:{environ['PATH']}"
    done = distrun("launch", "--hosts", "a,b", "--dry-run", "train.py", env=environ)
    assert done.returncode == 0
    assert done.stdout.count("torchrun --nnodes=2") == 2
    assert not (tmp_path / "called").exists()


def test_a_flag_for_other_machines_is_told_to_have_no_effect_without_any(
    distrun: Run, environ: dict[str, str]
) -> None:
    done = distrun("launch", "--sync", "--interface", "eth1", "--dry-run", "train.py", env=environ)
    assert done.returncode == 0
    for name in ("sync", "interface"):
        assert f"# --{name} has no effect: all nodes are on this machine\n" in done.stdout


def test_without_ssh_it_says_what_is_missing(
    distrun: Run, environ: dict[str, str], tmp_path: Path
) -> None:
    environ["PATH"] = str(tmp_path)
    done = distrun("launch", "--hosts", "a,b", "train.py", env=environ)
    assert done.returncode == 3
    assert "ssh cannot be started: No such file or directory" in done.stderr
