"""Runs from another terminal: ps, logs, show, stop, detach, and the Python API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from distrun.api import Job, launch
from tests.conftest import SCENARIOS, only_run, wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]
PRINTS = SCENARIOS / "prints.py"
FAULTS = SCENARIOS / "faults.py"


def test_a_detached_run_is_listed_followed_and_stopped_from_elsewhere(
    distrun: Run, command: list[str], tmp_path: Path
) -> None:
    started = distrun("launch", "--detach", "--nproc-per-node", 2, PRINTS, "wait")
    assert started.returncode == 0, started.stderr
    name = only_run(tmp_path).name
    assert f"distrun logs {name} -f" in started.stderr
    wait_until((tmp_path / "waiting1").exists, 30)
    wait_until((tmp_path / "waiting0").exists, 30)
    assert name in distrun("ps", "--running").stdout
    follower = subprocess.Popen(
        [*command, "logs", name, "-f"],
        cwd=tmp_path,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert follower.stdout
    seen = {follower.stdout.readline() for _ in range(2)}
    assert seen == {"[0·0] rank 0 waits\n", "[0·1] rank 1 waits\n"}
    stopped = distrun("stop", name)
    assert stopped.returncode == 0
    assert f"{name}: terminated, stopped by SIGTERM" in stopped.stderr
    _, errors = follower.communicate(timeout=20)
    assert "TERMINATED" in errors
    assert distrun("ps", "--running").stdout == ""
    assert distrun("stop", name).returncode == 2


def test_who_finds_the_end_in_the_record_finds_it_among_the_events(
    command: list[str], tmp_path: Path
) -> None:
    words = ("launch", "--quiet", "--no-python", "--nproc-per-node", "1", "true")
    with subprocess.Popen([*command, *words], cwd=tmp_path) as launch:
        wait_until(lambda: list(tmp_path.glob("runs/*/run.json")), 30, "a record")
        run = only_run(tmp_path)
        while json.loads((run / "run.json").read_text())["ended_at"] is None:
            assert launch.poll() is None
        last = (run / "events.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["event"] == "ended"


def test_an_end_that_a_full_disk_kept_no_event_of_is_told_from_the_record(
    distrun: Run, tmp_path: Path
) -> None:
    distrun("launch", "--nproc-per-node", 1, FAULTS, "exit_3", "--rank", 0)
    run = only_run(tmp_path)
    events = (run / "events.jsonl").read_text().splitlines(keepends=True)
    assert json.loads(events[-1])["event"] == "ended"
    (run / "events.jsonl").write_text("".join(events[:-1]))
    followed = distrun("logs", run.name, "-f")
    assert followed.returncode == 0
    assert "exit code 3" in followed.stderr


def test_stop_with_force_does_not_wait_for_the_grace(distrun: Run, tmp_path: Path) -> None:
    words = ("--grace", "1h", "--nproc-per-node", 1, FAULTS, "ignore_sigterm", "--rank", 0)
    place = ("--runs-dir", "my runs")
    started = distrun("launch", "--detach", *place, *words)
    assert started.stderr.rstrip().endswith(" -f --runs-dir 'my runs'")  # works as pasted
    wait_until((tmp_path / "waiting0").exists, 30)
    record = json.loads(distrun("stop", "--force", "--json", *place).stdout)
    assert (record["outcome"], record["state"]) == ("terminated", "ended")


def test_a_script_with_brackets_in_its_name_does_not_break_the_list(
    distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "[").mkdir()
    (tmp_path / "[" / "b].py").write_text("")
    distrun("launch", "--nproc-per-node", 1, "[/b].py")
    assert "[/b].py" in distrun("ps").stdout


def test_a_finished_run_can_be_read_again(distrun: Run, tmp_path: Path) -> None:
    distrun("launch", "--nodes", 2, "--nproc-per-node", 1, PRINTS, "hello")
    name = only_run(tmp_path).name
    (row,) = json.loads(distrun("ps", "--json").stdout)
    assert (row["run_id"], row["state"], row["outcome"]) == (name, "ended", "succeeded")
    (tmp_path / "other").mkdir()
    everywhere = distrun("ps", "--all", "--json", cwd=tmp_path / "other").stdout
    assert row["runs_dir"] == str(tmp_path / "runs")
    assert row in json.loads(everywhere)
    logs = distrun("logs")
    for shown, stream in ((logs.stdout, "stdout"), (logs.stderr, "stderr")):
        assert shown == "".join(f"[{r}·{r}] {stream} of rank {r}\n" for r in (0, 1))
    of_one = distrun("logs", name[-4:], "--rank", 1)
    assert (of_one.stdout, of_one.stderr) == ("stdout of rank 1\n", "stderr of rank 1\n")
    assert distrun("logs", "--rank", "1", "--prefix").stdout == "[1·1] stdout of rank 1\n"
    assert distrun("logs", "--no-prefix").stdout == "stdout of rank 0\nstdout of rank 1\n"
    refused = distrun("logs", "--rank", "0-7")
    assert refused.returncode == 2
    assert "--rank 0-7: no rank 7, the ranks are 0 to 1" in refused.stderr
    output = [json.loads(line) for line in distrun("logs", "--json").stdout.splitlines()]
    assert [(event["event"], event["rank"]) for event in output] == [
        ("output", rank) for rank in (0, 0, 1, 1)
    ]
    assert output[3]["line"] == f"{output[3]['stream']} of rank 1"
    shown = distrun("show", name).stdout
    assert "every rank ended with 0" in shown and "2 nodes × 1" in shown
    assert distrun("ps", "--prune", 0).returncode == 0
    assert list((tmp_path / "runs").iterdir()) == []


def test_show_tells_the_verdict_of_a_failed_run(distrun: Run) -> None:
    distrun("launch", "--nproc-per-node", 2, FAULTS, "raise_error")
    shown = distrun("show").stdout
    assert "failed (exit code 1)" in shown
    assert "ValueError: boom of the first rank" in shown


def test_secrets_are_neither_printed_nor_recorded_but_reach_the_ranks(
    distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "secrets.env").write_text("WANDB_NAME='file secret'\n")
    (tmp_path / "show.py").write_text(
        "import os\nprint(os.environ['WANDB_NAME'][::-1], os.environ['MY_TOKEN'][::-1])\n"
    )
    words = ("--env-file", "secrets.env", "--env", "MY_TOKEN=flag secret", "show.py")
    dry = distrun("launch", "--dry-run", "--explain", *words)
    result = distrun("launch", "--nproc-per-node", 1, *words)
    assert "terces elif terces galf" in result.stdout
    texts = [dry.stdout, dry.stderr, result.stdout, result.stderr]
    files = [p for p in only_run(tmp_path).rglob("*") if p.is_file() and p.suffix != ".log"]
    texts += [path.read_text() for path in files]
    for text in texts:
        assert "file secret" not in text and "flag secret" not in text
    assert "MY_TOKEN WANDB_NAME" in dry.stdout, "it says which to export"


def test_the_run_directory_is_private(distrun: Run, tmp_path: Path) -> None:
    distrun("launch", "--nproc-per-node", 1, PRINTS, "hello")
    assert only_run(tmp_path).stat().st_mode & 0o777 == 0o700


def test_metrics_are_kept_line_by_line(distrun: Run, tmp_path: Path) -> None:
    distrun("launch", "--nproc-per-node", 1, PRINTS, "train")
    lines = (only_run(tmp_path) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 31))


def test_the_api_returns_a_frozen_result_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    good = launch(Job(script=str(PRINTS), args=("hello",), nodes=2, nproc_per_node=1,
                      runs_dir=tmp_path / "runs"))  # fmt: skip
    assert (good.outcome, good.exit_code, good.attempts) == ("succeeded", 0, 1)
    assert (good.run_dir / "logs" / "node1" / "rank1.log").is_file()
    bad = launch(Job(script=str(FAULTS), args=("exit_3",), nproc_per_node=2,
                     runs_dir=tmp_path / "runs"))  # fmt: skip
    assert bad.exit_code == 3
    assert bad.verdict and bad.verdict["rank"] == 1
    assert capfd.readouterr() == ("", "")
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_the_api_works_from_a_thread(tmp_path: Path) -> None:
    results = []
    job = Job(script=str(PRINTS), args=("hello",), nproc_per_node=1, runs_dir=tmp_path)
    thread = threading.Thread(target=lambda: results.append(launch(job)))
    thread.start()
    thread.join(60)
    assert [result.exit_code for result in results] == [0]


def test_ranks_are_forked_from_one_import_of_torch(distrun: Run, tmp_path: Path) -> None:
    (tmp_path / "parents.py").write_text(
        "import os, pathlib\n"
        "parent = os.getppid()\n"
        "maps = pathlib.Path(f'/proc/{parent}/maps').read_text()\n"
        "print(parent, 'libtorch_cpu' in maps)\n"
    )
    warm = distrun("launch", "--nproc-per-node", 3, "parents.py").stdout.splitlines()
    assert len({line.split()[1] for line in warm}) == 1
    assert all(line.endswith("True") for line in warm)
    cold = distrun("launch", "--start-method", "spawn", "--nproc-per-node", 1, "parents.py").stdout
    assert cold.rstrip().endswith("False")


def test_a_launch_under_variables_of_a_world_is_not_misled(distrun: Run) -> None:
    result = distrun(
        "launch", "--nproc-per-node", 2, SCENARIOS / "all_reduce.py",
        env={**os.environ, "RANK": "7", "WORLD_SIZE": "9", "MASTER_ADDR": "nowhere",
             "LOCAL_RANK": "5"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("sum 1.0") == 2


def test_a_program_that_is_not_python_runs_too(distrun: Run, tmp_path: Path) -> None:
    script = tmp_path / "hello.sh"
    script.write_text('#!/bin/sh\necho "rank $RANK of $WORLD_SIZE $1"\nexit $RANK\n')
    script.chmod(0o755)
    result = distrun("launch", "--no-python", "--nproc-per-node", 2, script, "--nodes")
    assert sorted(result.stdout.splitlines()) == [
        "[0·0] rank 0 of 2 --nodes",
        "[0·1] rank 1 of 2 --nodes",
    ]
    assert result.returncode == 1


def test_the_wheel_works_outside_of_the_checkout(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    wanted = {"distrun/py.typed", "distrun/_recipes/ddp.py", "distrun/_recipes/digits.npz"}
    assert wanted <= set(names)
    assert any(name.endswith("LICENSE") for name in names)
    assert not any(name.startswith(("recipes/", "tests/")) for name in names)
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:  # what an installer does with a pure wheel
        archive.extractall(site)
    (tmp_path / "where.py").write_text("import distrun\nprint(distrun.__file__)\n")

    def installed(*words: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "distrun", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    printed = installed("launch", "--nproc-per-node", "1", "where.py")
    assert printed == f"{site}/distrun/__init__.py\n"
    assert installed("recipes", "path", "fsdp") == f"{site}/distrun/_recipes/fsdp.py\n"
    installed("recipes", "copy", "fsdp", "mine.py")
    assert (tmp_path / "mine.py").read_bytes() == (root / "recipes" / "fsdp.py").read_bytes()
