"""Every stage of a run has a clock: who is stopped, stuck or killed is named, and the run ends."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SCENARIOS, wait_until
from tests.process.launched import Launched

FAULTS = SCENARIOS / "faults.py"
Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = [pytest.mark.long, pytest.mark.timeout(110)]


@pytest.mark.parametrize(
    ("who", "code", "silent", "lost"),
    [
        ("agent1", 5, "the agent of node1", "node1: its agent said nothing for 30 s"),
        (
            "forkserver1",
            5,
            "the process that forks ranks",
            "node1: the process that forks its ranks said nothing for 30 s",
        ),
        ("supervisor", 70, "the supervisor of this run", "said nothing for 30 s and was killed"),
    ],
)
def test_who_is_stopped_is_told_after_10_s_and_given_up_after_30(
    launched: Callable[..., Launched], who: str, code: int, silent: str, lost: str
) -> None:
    run = launched("--nodes", 2, "--nproc-per-node", 1, FAULTS, "wait", "--rank", "all")
    run.wait_for("waiting0", "waiting1")
    os.kill(run.pid_of(who), signal.SIGSTOP)
    found, errors = run.end(60)
    assert found == code, errors
    assert f"{silent} has been silent for 10 s" in errors
    assert lost in errors


def test_a_run_goes_on_after_a_stop_that_is_shorter(launched: Callable[..., Launched]) -> None:
    run = launched("--nodes", 2, "--nproc-per-node", 1, FAULTS, "wait", "--rank", "all")
    run.wait_for("waiting0", "waiting1")
    stopped = [run.pid_of(who) for who in ("agent0", "forkserver1", "supervisor")]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    run.wait_for_words("has been silent for 10 s")
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    run.process.send_signal(signal.SIGTERM)
    assert run.end()[0] == 143


def test_an_agent_that_is_stopped_before_it_joins_ends_with_4(
    launched: Callable[..., Launched],
) -> None:
    words = ("--nodes", 2, "--nproc-per-node", 1, "--join-timeout", 15)
    run = launched(*words, FAULTS, "wait", "--rank", "all")
    wait_until(lambda: any("pid" in e and e["node"] == 1 for e in run.events()), 30)
    os.kill(run.pid_of("agent1"), signal.SIGSTOP)
    code, errors = run.end(60)
    assert code == 4, errors
    assert "1 of 2 nodes did not join within 15 s: node1 (" in errors


def test_the_node_of_a_killed_forkserver_is_blamed_not_the_healthy_one(
    launched: Callable[..., Launched],
) -> None:
    run = launched("--nodes", 2, "--nproc-per-node", 1, FAULTS, "wait", "--rank", "all", "--gloo")
    run.wait_for("waiting0", "waiting1")
    os.kill(run.pid_of("forkserver1"), signal.SIGKILL)
    code, errors = run.end()
    assert code == 5, errors
    assert "NODE LOST: node1: the process that forks its ranks was killed" in errors


@pytest.mark.parametrize("path", ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
def test_a_script_that_is_a_descriptor_of_the_launcher_is_refused(
    distrun: Run, tmp_path: Path, path: str
) -> None:
    (tmp_path / "train.py").write_text("print('trained')")
    with open(tmp_path / "train.py") as stdin:
        result = distrun("launch", path, stdin=stdin)
    assert result.returncode == 2
    assert "is not a regular file, which every rank could read" in result.stderr


def test_ranks_that_go_on_after_others_have_ended_are_told_with_their_place(
    launched: Callable[..., Launched], tmp_path: Path
) -> None:
    script = tmp_path / "late.py"
    script.write_text(
        "import os, time\n"
        "def load():\n"
        "    time.sleep(300)\n"
        "if os.environ['RANK'] == '2':\n"
        "    load()\n"
    )
    run = launched("--nodes", 2, "--nproc-per-node", 2, "--straggler-notice", 1, script)
    run.wait_for_event("stragglers")
    run.process.send_signal(signal.SIGTERM)
    code, errors = run.end()
    assert "ranks 0, 1, 3 ended 1 s ago; rank 2 at late.py:3 (sleep)" in errors, errors
    assert code == 143


@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to become another user"
)
@pytest.mark.parametrize("processes", [3, 5, 8, 20])
def test_a_user_who_may_have_too_few_processes_is_told_so(
    command: list[str], tmp_path: Path, processes: int
) -> None:
    (tmp_path / "train.py").write_text("import time; time.sleep(300)")
    tmp_path.chmod(0o777)
    user = ["setpriv", "--reuid=54321", "--clear-groups"]  # who may read what root may
    caps = "+dac_override,+dac_read_search"
    words = ["launch", "--no-check", "--nproc-per-node", "24", "train.py"]
    result = subprocess.run(
        [*user, f"--inh-caps={caps}", f"--ambient-caps={caps}", *command, *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 3, result.stderr
    assert "Resource temporarily unavailable" in result.stderr or "thread" in result.stderr
