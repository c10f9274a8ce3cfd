"""Restarts of the whole world, nodes that do not come, and nodes that go."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SCENARIOS, TIMES, only_run, wait_until

FAULTS = SCENARIOS / "faults.py"
Run = Callable[..., subprocess.CompletedProcess[str]]


def events_of(directory: Path, name: str) -> list[dict[str, object]]:
    lines = (only_run(directory) / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


@pytest.mark.long
@pytest.mark.timeout(20 + 20 * TIMES)
def test_a_crashed_gloo_world_comes_back_every_time(distrun: Run, tmp_path: Path) -> None:
    result = distrun(
        *("launch", "--nodes", 2, "--nproc-per-node", 1, "--max-restarts", TIMES),
        *(FAULTS, "crash_until_attempt", "--gloo"),
        timeout_s=10 + 20 * TIMES,
    )
    assert result.returncode == 0, result.stderr
    assert "[1·1] came through" in result.stdout
    why = "rank 1 on node1 failed first: RuntimeError"
    assert f"restart {TIMES} of {TIMES}: {why}" in result.stderr
    assert "done in" in result.stderr and f"after {TIMES} restarts" in result.stderr
    log = (only_run(tmp_path) / "logs" / "node1" / "rank1.log").read_text()
    assert f"--- distrun: attempt {TIMES + 1} begins ---" in log
    ids = {event["run_id"] for event in events_of(tmp_path, "world_started")}
    assert len(ids) == TIMES + 1, "every attempt needs a rendezvous id of its own"


def test_the_same_error_on_all_ranks_twice_is_not_restarted_a_third_time(
    distrun: Run, tmp_path: Path
) -> None:
    result = distrun(
        *("launch", "--nproc-per-node", 2, "--max-restarts", 5),
        *(FAULTS, "same_error", "--rank", "all"),
    )
    assert result.returncode == 1
    assert "every rank met the same error at the same line twice" in result.stderr
    assert len(events_of(tmp_path, "attempt_started")) == 2


def test_a_rank_that_crashes_more_often_than_allowed_fails_the_run(
    distrun: Run, tmp_path: Path
) -> None:
    result = distrun("launch", "--nproc-per-node", 2, "--max-restarts", 1, FAULTS, "hard_exit_7")
    assert result.returncode == 7
    assert "and 2 attempts" in result.stderr
    assert len(events_of(tmp_path, "attempt_started")) == 2


def hold_back_node_1(directory: Path, action: str = "signal.pause()") -> dict[str, str]:
    """Return an environment in which the agent of node 1 never gets to its first line."""
    (directory / "sitecustomize.py").write_text(
        f"import os, signal\nif os.environ.get('DISTRUN_TAG', '').endswith('/1'): {action}\n"
    )
    path = os.pathsep.join(filter(None, [str(directory), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def test_a_node_that_never_joins_is_named_and_ends_the_run_with_4(
    distrun: Run, tmp_path: Path
) -> None:
    result = distrun(
        *("launch", "--nodes", 2, "--nproc-per-node", 1, "--join-timeout", 12, FAULTS, "wait"),
        env=hold_back_node_1(tmp_path),
    )
    assert result.returncode == 4, result.stderr
    assert "waiting 3 s for nodes" in result.stderr
    assert "1 of 2 nodes did not join within 12 s: node1 (starting)" in result.stderr


def test_an_elastic_job_starts_with_the_nodes_that_have_joined(
    distrun: Run, tmp_path: Path
) -> None:
    result = distrun(
        *("launch", "--nodes", "1:2", "--nproc-per-node", 1, "--join-timeout", 12),
        *(FAULTS, "exit_0_early", "--rank", "all"),
        env=hold_back_node_1(tmp_path),
    )
    assert result.returncode == 0, result.stderr
    assert "starting with 1 node, without node1" in result.stderr
    assert [e["world_size"] for e in events_of(tmp_path, "world_started")] == [1]


@pytest.mark.parametrize("lost", [0, 1])
def test_an_elastic_job_goes_on_without_a_lost_node_and_the_other_keeps_its_name(
    command: list[str], tmp_path: Path, lost: int
) -> None:
    words = ["--nodes", "1:2", "--nproc-per-node", "1", str(FAULTS), "save_on_sigterm"]
    process = subprocess.Popen(
        [*command, "launch", *words, "--rank", "all"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((tmp_path / "waiting1").exists, 30)
    wait_until((tmp_path / "waiting0").exists, 30)
    agent = next(e["pid"] for e in events_of(tmp_path, "node_stage") if e["node"] == lost)
    (tmp_path / "waiting0").unlink()
    os.kill(int(str(agent)), signal.SIGKILL)
    wait_until((tmp_path / "waiting0").exists, 30, "the second world")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors
    assert "going on with the one node that is left" in errors
    assert [e["world_size"] for e in events_of(tmp_path, "world_started")] == [2, 1]
    started = events_of(tmp_path, "rank_started")
    assert [(e["node"], e["rank"]) for e in started[2:]] == [(1 - lost, 0)]
    assert (only_run(tmp_path) / "logs" / f"node{1 - lost}" / "rank0.log").exists()


def test_an_elastic_job_whose_node_dies_before_it_joins_does_not_start_for_ever(
    distrun: Run, tmp_path: Path
) -> None:
    result = distrun(
        *("launch", "--nodes", "1:2", "--nproc-per-node", 1, FAULTS, "exit_0_early"),
        *("--rank", "all"),
        env=hold_back_node_1(tmp_path, "os._exit(9)"),
    )
    assert result.returncode == 0, result.stderr
    assert [e["world_size"] for e in events_of(tmp_path, "world_started")] == [1]


def test_torch_that_cannot_be_imported_is_told_and_ends_with_3(
    distrun: Run, tmp_path: Path
) -> None:
    broken = tmp_path / "site" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libtorch_cpu.so: not today')")
    (broken / "version.py").write_text("__version__ = '2.13.0'\n")
    path = os.pathsep.join(filter(None, [str(broken.parent), os.environ.get("PYTHONPATH")]))
    result = distrun("launch", FAULTS, "wait", env={**os.environ, "PYTHONPATH": path})
    assert result.returncode == 3, result.stderr
    assert "torch cannot be imported on node0: ImportError: libtorch_cpu.so" in result.stderr


def test_a_sitecustomize_that_prints_disturbs_nothing(distrun: Run, tmp_path: Path) -> None:
    environ = hold_back_node_1(tmp_path, "pass")
    (tmp_path / "sitecustomize.py").write_text("print('hello from sitecustomize')\n")
    result = distrun("launch", "--nproc-per-node", 2, SCENARIOS / "all_reduce.py", env=environ)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("sum 1.0") == 2


def test_a_long_command_line_arrives_whole(distrun: Run, tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text("import sys\nprint(len(sys.argv), len(sys.argv[-1]))\n")
    names = [f"shard-{number:06d}-" + "x" * 40 for number in range(6000)]
    result = distrun("launch", "--nproc-per-node", 2, "count.py", *names)
    assert result.stdout.count("6001 53") == 2, result.stderr


def test_a_busy_master_port_is_refused_and_never_swapped_for_another(
    distrun: Run, tmp_path: Path
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        result = distrun("launch", "--master-port", port, FAULTS, "wait")
    assert result.returncode == 3
    assert f"--master-port {port} is in use by another process (" in result.stderr
    assert f"pid {os.getpid()})" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_five_launches_at_once_do_not_meet(command: list[str], tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [*command, "launch", "--nproc-per-node", "2", str(SCENARIOS / "all_reduce.py")],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(5)
    ]
    outputs = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0] * 5, outputs
    assert all("sum 1.0" in out for out, _ in outputs)
    assert len(list((tmp_path / "runs").iterdir())) == 5
