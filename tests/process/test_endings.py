"""However a run ends: the right exit code, the right rank, and no process left.

That nothing is left is asserted after every test by the autouse fixture.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SCENARIOS, TIMES, only_run, wait_until
from tests.process.launched import Launched

FAULTS = SCENARIOS / "faults.py"
Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.timeout(90)


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("raise_error", 1, "ValueError: boom of the first rank"),
        ("raise_without_str", 1, "Broken: <no message: its __str__ raised>"),
        ("exit_3", 3, "exited with 3"),
        ("exit_with_text", 1, "exited with 1\n  the last it printed:\n    the data is not there"),
        ("hard_exit_7", 7, "exited with 7"),
        ("sigkill", 137, "killed by SIGKILL"),
        ("segfault", 139, "killed by SIGSEGV"),
        ("abort", 134, "killed by SIGABRT"),
        ("out_of_memory", 1, "MemoryError"),
    ],
)
def test_the_first_failing_rank_gives_the_exit_code_and_is_named(
    distrun: Run, tmp_path: Path, kind: str, code: int, said: str
) -> None:
    result = distrun(
        "launch", "--nodes", 2, "--nproc-per-node", 2, "--grace", 20, FAULTS, kind, "--rank", 3
    )
    assert result.returncode == code, result.stderr
    assert f"FAILED: rank 3 on node1 failed first: {said}" in result.stderr
    record = json.loads((only_run(tmp_path) / "run.json").read_text())
    assert (record["outcome"], record["exit_code"]) == ("failed", code)
    assert json.loads((only_run(tmp_path) / "verdict.json").read_text())["rank"] == 3


def test_a_verdict_shows_traceback_and_source_line_of_an_unmodified_script(distrun: Run) -> None:
    result = distrun("launch", "--nproc-per-node", 2, FAULTS, "raise_error")
    lines = FAULTS.read_text().splitlines()
    number = next(i for i, line in enumerate(lines, 1) if "boom of the first" in line)
    assert f'File "{FAULTS}", line {number}, in raise_error' in result.stderr
    assert f"faults.py:{number}: raise ValueError" in result.stderr
    assert "distrun/agent" not in result.stderr


def test_a_crash_in_c_is_told_with_the_python_line(distrun: Run) -> None:
    result = distrun("launch", "--nproc-per-node", 1, FAULTS, "segfault", "--rank", 0)
    number = 1 + FAULTS.read_text().splitlines().index("    ctypes.string_at(0)")
    assert f"faults.py:{number}" in result.stderr


@pytest.mark.parametrize("kind", ["raise_error", "hard_exit_7", "sigkill"])
def test_victims_in_a_collective_are_not_blamed_and_their_tracebacks_stay_in_the_files(
    distrun: Run, tmp_path: Path, kind: str
) -> None:
    result = distrun(
        "launch", "--nodes", 2, "--nproc-per-node", 2, FAULTS, kind, "--rank", 2, "--gloo"
    )
    assert "rank 2 on node1 failed first" in result.stderr, result.stderr
    assert "Connection" not in result.stdout + result.stderr
    logs = "".join(path.read_text() for path in only_run(tmp_path).glob("logs/node*/rank*.log"))
    assert "Traceback" in logs


def test_a_victim_that_is_stopped_while_its_own_hook_reports_fills_no_screen(
    distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "hook.py").write_text(
        "import os, sys, time, traceback\n"
        "import torch.distributed as dist\n"
        "def send_report(*error):\n"
        "    traceback.print_exception(*error)\n"
        "    time.sleep(60)\n"
        "dist.init_process_group('gloo')\n"
        "sys.excepthook = send_report\n"
        "if os.environ['RANK'] == '1':\n"
        "    os._exit(7)\n"
        "dist.barrier()\n"
    )
    result = distrun("launch", "--nproc-per-node", 2, "hook.py")
    assert result.returncode == 7 and "rank 1 on node0 failed first" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert "Traceback" in (only_run(tmp_path) / "logs/node0/rank0.log").read_text()


def test_a_message_of_megabytes_costs_neither_type_nor_line_and_fills_no_screen(
    distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "long.py").write_text("print('begun')\nraise ValueError('a' * 5_000_000 + 'end')\n")
    result = distrun("launch", "--nproc-per-node", 2, "--start-method", "spawn", "long.py")
    assert result.returncode == 1
    assert "failed first: ValueError: aaa" in result.stderr
    assert "at long.py:2: raise ValueError" in result.stderr
    assert "characters left out … " in result.stderr and "aaaend\n" in result.stderr
    assert "1 with the same error" in result.stderr
    assert len(result.stdout + result.stderr) < 3000
    assert len((only_run(tmp_path) / "logs/node0/rank0.log").read_text()) > 5_000_000


def test_a_rank_that_leaves_early_with_0_is_mentioned_when_the_others_break(distrun: Run) -> None:
    result = distrun("launch", "--nproc-per-node", 2, FAULTS, "exit_0_early", "--gloo")
    assert result.returncode != 0
    assert "rank 1 had ended with 0 while others still waited" in result.stderr


def test_ranks_that_die_20_ms_apart_are_told_in_the_right_order_every_time(
    distrun: Run, tmp_path: Path
) -> None:
    for number in range(TIMES):
        cwd = tmp_path / str(number)
        cwd.mkdir()
        result = distrun(
            *("launch", "--nproc-per-node", 3, FAULTS, "die_in_order", "--rank", "0,2"), cwd=cwd
        )
        assert "rank 2 on node0 failed first: exited with 5" in result.stderr, result.stderr
        assert result.returncode == 5


@pytest.mark.parametrize("kind", ["children", "children_and_exit_0"])
def test_grandchildren_are_gone_after_a_failure_and_after_a_clean_end(
    distrun: Run, kind: str, tmp_path: Path
) -> None:
    words = ("--linger", 0, "--grace", 1, FAULTS, kind, "--rank", "all")
    result = distrun("launch", "--nproc-per-node", 2, *words)
    assert (tmp_path / "children1").exists()
    assert result.returncode == (1 if kind == "children" else 0), result.stderr


def test_sigkill_of_an_agent_ends_the_run_with_5(launched: Callable[..., Launched]) -> None:
    run = launched("--nodes", 2, "--nproc-per-node", 2, "--grace", 2, FAULTS, "children_and_wait")
    run.wait_for("waiting0", "waiting2", "waiting3", "children1")
    os.kill(run.pid_of("agent1"), signal.SIGKILL)
    code, errors = run.end()
    assert code == 5, errors
    assert "NODE LOST: the agent of node1 ended unexpectedly" in errors


@pytest.mark.parametrize("victims", [["launcher"], ["supervisor"], ["launcher", "supervisor"]])
def test_sigkill_of_launcher_or_supervisor_leaves_no_process(
    launched: Callable[..., Launched], victims: list[str]
) -> None:
    run = launched("--nodes", 2, "--nproc-per-node", 1, "--grace", 2, FAULTS, "children_and_wait")
    run.wait_for("waiting0", "children1")
    pids = [run.process.pid if who == "launcher" else run.pid_of(who) for who in victims]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    code, errors = run.end()
    if victims == ["supervisor"]:
        assert code == 70
        assert "the supervisor" in errors


def test_a_second_ctrl_c_kills_ranks_that_ignore_the_first(
    launched: Callable[..., Launched],
) -> None:
    run = launched("--nproc-per-node", 2, "--grace", "1h", FAULTS, "ignore_sigterm")
    run.wait_for("waiting0", "waiting1")
    run.process.send_signal(signal.SIGINT)
    wait_until(lambda: '"stopping"' in (only_run(run.cwd) / "events.jsonl").read_text())
    run.process.send_signal(signal.SIGINT)
    code, errors = run.end()
    assert code == 130, errors
    assert "of 2 ranks had to be killed" in errors


def test_the_grace_is_kept_on_the_failure_path_too(launched: Callable[..., Launched]) -> None:
    # With the default grace of 30 s it would not end within end()'s own 25 s.
    run = launched("--nproc-per-node", 3, "--grace", 1, FAULTS, "ignore_sigterm")
    run.wait_for("waiting0", "waiting1", "waiting2")
    events = (only_run(run.cwd) / "events.jsonl").read_text().splitlines()
    ranks = {e["rank"]: e["pid"] for e in map(json.loads, events) if e["event"] == "rank_started"}
    os.kill(ranks[2], signal.SIGKILL)
    code, errors = run.end()
    assert code == 137
    assert "rank 2 on node0 failed first" in errors


def test_a_first_failure_counts_though_ctrl_c_follows_in_the_grace(
    launched: Callable[..., Launched],
) -> None:
    run = launched("--nproc-per-node", 2, "--grace", 2, FAULTS, "fail_then_linger", "--rank", "all")
    run.wait_for("waiting1")
    wait_until(lambda: '"exit_code": 1' in (only_run(run.cwd) / "events.jsonl").read_text(), 30)
    run.process.send_signal(signal.SIGINT)
    code, errors = run.end()
    assert code == 1
    assert "rank 0 on node0 failed first: ValueError" in errors


def test_a_signal_in_the_first_moments_is_not_lost(launched: Callable[..., Launched]) -> None:
    run = launched("--nproc-per-node", 1, FAULTS, "wait")
    runs = run.cwd / "runs"
    wait_until(lambda: runs.exists() and list(runs.glob("*/run.json")), 20)
    run.process.send_signal(signal.SIGTERM)
    assert run.end()[0] == 143


@pytest.mark.parametrize("kind", ["warm", "cold"])
def test_ranks_that_end_at_once_are_not_missed(distrun: Run, tmp_path: Path, kind: str) -> None:
    (tmp_path / "leave.py").write_text("import os\nos._exit(0)\n")
    # SIGPIPE ends a program, as in a shell: that Python ignores it is nothing it should inherit.
    (tmp_path / "leave.sh").write_text(
        "#!/bin/bash\nyes | head -1 > head.$RANK\ntest ${PIPESTATUS[0]} = 141\n"
    )
    (tmp_path / "leave.sh").chmod(0o755)
    words = ("leave.py",) if kind == "warm" else ("--no-python", "./leave.sh")
    result = distrun("launch", "--nproc-per-node", 12, *words)
    assert result.returncode == 0, result.stderr
    logs = only_run(tmp_path) / "logs" / "node0"
    assert [(logs / f"rank{rank}.log").read_text() for rank in range(12)] == [""] * 12


def test_a_traceback_that_the_script_logged_itself_is_shown(distrun: Run) -> None:
    result = distrun("launch", "--nproc-per-node", 1, FAULTS, "log_and_exit", "--rank", 0)
    assert result.returncode == 1
    assert "\nValueError: boom of the first rank\n" in result.stderr
    assert "after the traceback\n" in result.stdout + result.stderr


def test_what_is_printed_after_a_traceback_is_shown(distrun: Run) -> None:
    words = (FAULTS, "raise_and_say_goodbye", "--rank", 0)
    result = distrun("launch", "--nproc-per-node", 1, *words)
    assert result.stdout == "goodbye, after the traceback\n"
    assert result.stderr.count("boom of the first rank") > 1


@pytest.mark.parametrize("kind", ["garbage_reports", "hostile_metrics"])
def test_a_rank_cannot_harm_its_agent_by_what_it_reports(distrun: Run, kind: str) -> None:
    result = distrun("launch", "--nproc-per-node", 1, FAULTS, kind, "--rank", 0)
    assert result.returncode == 0, result.stderr


def test_a_killed_forkserver_ends_the_run_with_5(launched: Callable[..., Launched]) -> None:
    run = launched("--nproc-per-node", 2, FAULTS, "wait", "--rank", "all")
    run.wait_for("waiting0", "waiting1")
    os.kill(run.pid_of("forkserver0"), signal.SIGKILL)
    code, errors = run.end()
    assert code == 5, errors


def test_a_supervisor_that_hears_nothing_is_ended_by_the_second_ctrl_c(
    launched: Callable[..., Launched],
) -> None:
    run = launched("--nproc-per-node", 1, FAULTS, "wait", "--rank", "all")
    run.wait_for("waiting0")
    os.kill(run.pid_of("supervisor"), signal.SIGSTOP)
    run.process.send_signal(signal.SIGINT)
    run.process.send_signal(signal.SIGTERM)
    assert run.end()[0] == 70


@pytest.mark.parametrize(
    ("signum", "code"),
    [
        *((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)),
        *((signal.SIGXCPU, 152), (signal.SIGALRM, 142)),  # the ranks get SIGTERM
    ],
)
def test_a_signal_to_the_launcher_ends_the_run_with_its_own_code(
    launched: Callable[..., Launched], signum: signal.Signals, code: int
) -> None:
    run = launched("--nodes", 2, "--nproc-per-node", 1, FAULTS, "wait", "--rank", "all")
    run.wait_for("waiting0", "waiting1")
    run.process.send_signal(signum)
    found, errors = run.end()
    assert found == code
    assert len(list((only_run(run.cwd) / "stacks").iterdir())) == 2
    assert re.search(r"where the ranks were: ranks 0, 1 at faults\.py:\d+ \(", errors), errors


def test_a_recipe_that_saves_on_sigterm_ends_with_143_and_the_note(
    launched: Callable[..., Launched],
) -> None:
    run = launched("--nproc-per-node", 2, FAULTS, "save_on_sigterm", "--rank", "all")
    run.wait_for("waiting0", "waiting1")
    run.process.send_signal(signal.SIGTERM)
    code, errors = run.end()
    assert code == 143
    assert "every rank ended with 0 by itself" in errors
    assert (run.cwd / "saved0").exists() and (run.cwd / "saved1").exists()


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2])
def test_sigusr_reaches_ranks_with_a_handler_and_names_the_others(
    launched: Callable[..., Launched], signum: signal.Signals
) -> None:
    run = launched("--nproc-per-node", 2, FAULTS, "count_usr", "--rank", "all")
    run.wait_for("waiting0", "waiting1")
    run.process.send_signal(signum)
    run.wait_for(signum.name)
    run.process.send_signal(signal.SIGTERM)
    code, errors = run.end()
    assert code == 143
    assert f"signal {signum.name} was not passed to rank 1" in errors


def test_the_time_limit_ends_with_124_and_shows_where_each_rank_was(
    distrun: Run, tmp_path: Path
) -> None:
    waiting = [tmp_path / f"waiting{rank}" for rank in (0, 1)]
    for limit_s in (4, 12, 36):  # until this machine has had the time to start them
        words = ("--nproc-per-node", 2, "--time-limit", limit_s, FAULTS, "wait", "--rank", "all")
        result = distrun("launch", "--runs-dir", str(limit_s), *words)
        assert result.returncode == 124, result.stderr
        if all(file.exists() for file in waiting):
            break
    (run,) = (tmp_path / str(limit_s)).iterdir()
    for rank in (0, 1):
        stacks = (run / "stacks" / f"rank{rank}.txt").read_text()
        assert "faults.py" in stacks and "in wait" in stacks


def test_a_clean_run_ends_with_0_and_leaves_nothing_in_temp(distrun: Run, tmp_path: Path) -> None:
    temp = tmp_path / "temp"
    temp.mkdir()
    result = distrun(
        *("launch", "--nodes", 2, "--nproc-per-node", 1, FAULTS, "exit_0_early", "--rank", "all"),
        env={**os.environ, "TMPDIR": str(temp)},
    )
    assert result.returncode == 0, result.stderr
    assert list(temp.iterdir()) == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_shared_memory_of_ranks_that_are_stopped_is_removed(
    launched: Callable[..., Launched], signum: signal.Signals
) -> None:
    run = launched("--nproc-per-node", 2, FAULTS, "semaphores", "--rank", "all")
    run.wait_for("waiting0", "waiting1")
    memory = [Path("/dev/shm") / (run.cwd / f"memory{rank}").read_text() for rank in (0, 1)]
    assert all(path.exists() for path in memory)
    run.process.send_signal(signum)
    run.end()
    wait_until(lambda: not any(path.exists() for path in memory), 5, "an empty /dev/shm")
