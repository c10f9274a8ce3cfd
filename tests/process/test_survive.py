"""A run that goes on after a failure, makes room, and is gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SCENARIOS, only_run, wait_until
from tests.process.launched import Launched
from tests.process.memory_group import memory_group
from tests.unit.docs.told import is_as_told, said_on

SURVIVE = SCENARIOS / "survive.py"
GPT = Path(__file__).parents[2] / "recipes" / "ddp_gpt.py"
PAGE = Path(__file__).parents[2] / "docs" / "survive.md"
Run = Callable[..., subprocess.CompletedProcess[str]]
Launch = Callable[..., Launched]


def events_of(directory: Path, name: str) -> list[dict[str, Any]]:
    lines = (only_run(directory) / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def wait_for_step(directory: Path, step: int) -> None:
    """Wait until the run has reported a step."""
    found = list((directory / "runs").glob("*/metrics.jsonl"))
    wait_until(
        lambda: (
            any(f'"step": {step},' in file.read_text() for file in found)
            or bool(found.extend((directory / "runs").glob("*/metrics.jsonl")))
        ),
        40,
        f"step {step}",
    )


def losses_of(directory: Path) -> dict[int, float]:
    """Return the last loss that was recorded of each step."""
    lines = (only_run(directory) / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {each["step"]: each["loss"] for each in records if "loss" in each}


# --- another attempt ---------------------------------------------------------------------


def test_a_spare_takes_the_place_of_the_node_that_is_suspected(
    distrun: Run, tmp_path: Path
) -> None:
    result = distrun(
        *("launch", "--nodes", 2, "--nproc-per-node", 1, "--spare", 1, "--on", "crash=swap"),
        *(SURVIVE, 20, "once", 5, 1),
        timeout_s=60,
    )
    assert result.returncode == 0, result.stderr
    assert "restarting: node2 takes the place of node1" in result.stderr
    started = [(e["node"], e["rank"]) for e in events_of(tmp_path, "rank_started")]
    assert started[:2] != started[2:] and sorted(started[2:]) == [(0, 0), (2, 1)]
    marked = [path.parent.name for path in only_run(tmp_path).glob("logs/*/rank*.log")
              if "attempt 2 begins" in path.read_text()]  # fmt: skip
    assert "node0" in marked and "node1" not in marked
    (noted,) = json.loads((only_run(tmp_path) / "nodes.json").read_text())
    assert (noted["host"], noted["kind"], noted["out"]) == ("node1", "crash", True)
    assert "ValueError: once" in noted["why"] and noted["time"] > 0
    first, second = events_of(tmp_path, "attempt_ended")
    assert (first["failure"], first["nodes"], first["last_step"]) == (
        "crash",
        ["node0", "node1"],
        5,
    )
    assert (second["failure"], second["nodes"], second["last_step"]) == ("", ["node0", "node2"], 20)


def test_a_node_that_is_suspected_is_checked_beside_the_next_attempt(
    distrun: Run, tmp_path: Path
) -> None:
    script = tmp_path / "waits.py"
    script.write_text(
        "import os, time\n"
        "if os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and os.environ['RANK'] == '1':\n"
        "    raise SystemExit(3)\n"
        "known = os.environ['DISTRUN_RUN_DIR'] + '/nodes.json'\n"
        "while not (os.path.exists(known) and 'check' in open(known).read()):\n"
        "    time.sleep(0.1)\n"
    )
    words = ("--nodes", 2, "--nproc-per-node", 1, "--spare", 1, "--on", "crash=swap")
    result = distrun("launch", *words, "--time-limit", "50s", script, timeout_s=80)
    assert result.returncode == 0, result.stderr
    assert "node1 was checked: " in result.stderr
    (noted,) = json.loads((only_run(tmp_path) / "nodes.json").read_text())
    (event,) = events_of(tmp_path, "suspect_checked")
    assert noted["check"] == {name: event[name] for name in ("failed", "warned")}


def test_a_spare_without_work_ends_with_the_run_and_costs_nothing(
    distrun: Run, tmp_path: Path
) -> None:
    result = distrun("launch", "--nproc-per-node", 1, "--spare", 1, SURVIVE, 3, timeout_s=60)
    assert result.returncode == 0, result.stderr
    assert [e["node"] for e in events_of(tmp_path, "rank_started")] == [0]


def test_restarts_that_bring_no_new_step_are_given_up_after_three(
    distrun: Run, tmp_path: Path
) -> None:
    result = distrun(
        *("launch", "--nproc-per-node", 2, "--max-restarts", 100, "--on", "bad-node=retry"),
        *(SURVIVE, 20, "always", 3, 1),
        timeout_s=100,
    )
    assert result.returncode == 1
    assert "3 restarts in a row brought no new step" in result.stderr
    assert len(events_of(tmp_path, "attempt_started")) == 4


@pytest.mark.parametrize(
    ("kind", "known_as"), [("disk", "disk"), ("always", "code")], ids=["full disk", "first step"]
)
def test_what_another_attempt_would_not_cure_is_not_tried_again(
    distrun: Run, tmp_path: Path, kind: str, known_as: str
) -> None:
    words = ("launch", "--nproc-per-node", 2, "--max-restarts", 5)
    result = distrun(*words, SURVIVE, 20, kind, 0, 1, timeout_s=60)
    assert result.returncode == 1
    assert "not restarted again" in result.stderr
    assert events_of(tmp_path, "attempt_ended")[-1]["failure"] == known_as
    assert len(events_of(tmp_path, "attempt_started")) == (1 if kind == "disk" else 2)


SLOW = """\
import os, sys, time
import torch
sys.path.insert(0, {recipes!r})
import ddp_gpt

attempt, batch = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), ddp_gpt.batch

def slow_batch(*args):
    time.sleep((0.1, 0.5, 0.0)[attempt])  # the lost node needs some time to come back
    return batch(*args)

ddp_gpt.batch = slow_batch
ddp_gpt.main()
"""


@pytest.mark.timeout(200)
@pytest.mark.ci_cases(1)
@pytest.mark.parametrize(("precision", "nearly"), [("float64", 1e-12), ("float32", 1e-5)])
def test_a_run_that_shrank_and_grew_again_has_the_loss_of_an_undisturbed_one(
    distrun: Run, launched: Launch, tmp_path: Path, precision: str, nearly: float
) -> None:
    settings = ("--precision", precision, "--steps", 50, "--batch-size", 4, "--seq-len", 16)
    words = (*settings, "--checkpoint-every", 2, "--eval-every", 0)
    (tmp_path / "slow.py").write_text(SLOW.format(recipes=str(GPT.parent)))
    elastic = ("--nodes", "1:2", "--nproc-per-node", 2, "--regrow", "--grace", "10s")
    it = launched(*elastic, "slow.py", *words)
    wait_for_step(it.cwd, 4)
    os.kill(it.pid_of("agent1"), signal.SIGKILL)
    code, said = it.end(150)
    assert code == 0, said
    worlds = [e["nnodes"] for e in it.events() if e["event"] == "world_started"]
    assert worlds == [2, 1, 2], said
    assert said.count("node1 is back: it gets ranks at the next checkpoint") == 1
    for line in said_on(PAGE, "distrun: node1 is back").splitlines():
        assert any(is_as_told(each, line) for each in said.splitlines()), line
    (alone := tmp_path / "alone").mkdir()
    result = distrun("launch", "--nproc-per-node", 4, GPT, *words, cwd=alone, timeout_s=100)
    assert result.returncode == 0, result.stderr
    shrunk, undisturbed = losses_of(it.cwd), losses_of(alone)
    assert shrunk.keys() == undisturbed.keys() == set(range(1, 51))
    assert shrunk == pytest.approx(undisturbed, rel=nearly)


@pytest.mark.root
def test_a_rank_that_the_kernel_kills_for_memory_is_told_so(
    distrun: Run, command: list[str], tmp_path: Path
) -> None:
    with memory_group(700 << 20) as procs:
        into = ("sh", "-c", f'echo $$ > {procs}; exec "$@"', "sh")
        result = subprocess.run(
            [*into, *command, "launch", "--nproc-per-node", "1", SURVIVE, "20", "memory", "3", "0"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert result.returncode == 137, result.stderr
    assert "killed by the kernel, out of memory: its control group" in result.stderr


# --- leaving together ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "signum"),
    [("launcher", "SIGTERM"), ("launcher", "SIGUSR1"), ("agent1", "SIGTERM"), ("rank", "SIGUSR2")],
)
def test_whoever_is_signalled_all_ranks_leave_after_the_same_step(
    launched: Launch, who: str, signum: str
) -> None:
    it = launched("--nodes", 2, "--nproc-per-node", 2, SURVIVE, 100_000)
    wait_for_step(it.cwd, 3)
    if who == "rank":
        pid = int(str(next(e["pid"] for e in it.events() if e["event"] == "rank_started")))
    else:
        pid = it.process.pid if who == "launcher" else it.pid_of(who)
    os.kill(pid, getattr(signal, signum))
    code, said = it.end(60)
    steps = {(it.cwd / f"left-{rank}").read_text() for rank in range(4)}
    assert code == 143, said
    assert len(steps) == 1
    named = {"launcher": signum, "agent1": f"{signum} at node1", "rank": "a signal to a rank"}[who]
    assert f"PREEMPTED: preempted by {named}, all ranks left after step {steps.pop()}" in said


def test_a_run_saves_when_it_is_asked_to_and_goes_on(
    launched: Launch, distrun: Run, tmp_path: Path
) -> None:
    it = launched("--nproc-per-node", 2, SURVIVE, 100_000)
    wait_for_step(it.cwd, 3)
    result = distrun("save", "--json", cwd=it.cwd)
    assert result.returncode == 0, result.stderr
    saved = json.loads(result.stdout)["step"]
    wait_for_step(it.cwd, saved + 3)
    it.process.send_signal(signal.SIGTERM)
    code, said = it.end(60)
    assert code == 143
    assert f"saved at step {saved}" in said


def test_a_script_that_takes_no_part_is_not_asked_to_save(launched: Launch, distrun: Run) -> None:
    it = launched("--nproc-per-node", 1, SCENARIOS / "faults.py", "wait")
    it.wait_for_event("rank_started")
    result = distrun("save", cwd=it.cwd)
    assert result.returncode == 2
    assert "rank 0 of" in result.stderr and "cannot be asked to save" in result.stderr
    it.process.send_signal(signal.SIGINT)
    it.end()


# --- going on with a run ---------------------------------------------------------------------


def test_a_stopped_run_is_gone_on_with_in_the_same_record(
    launched: Launch, distrun: Run, tmp_path: Path
) -> None:
    settings = ("--steps", 30, "--batch-size", 8, "--seq-len", 32, "--eval-every", 0)
    it = launched("--nproc-per-node", 2, GPT, *settings, "--precision", "float64")
    wait_for_step(it.cwd, 3)
    it.process.send_signal(signal.SIGTERM)
    code, said = it.end(60)
    run_id = only_run(it.cwd).name
    assert code == 143 and f"distrun launch --resume {run_id}" in said
    for line in said_on(PAGE, "distrun: PREEMPTED").replace("step 22", "step …").splitlines():
        assert any(is_as_told(each, line) for each in said.splitlines()), line
    resumed = distrun("launch", "--resume", "latest", cwd=it.cwd, timeout_s=100)
    assert resumed.returncode == 0, resumed.stderr
    assert "step 30/30" in resumed.stdout and "step 1/30" not in resumed.stdout, "that was shown"
    record = json.loads((only_run(it.cwd) / "run.json").read_text())
    assert (record["run_id"], record["attempts"], record["outcome"]) == (run_id, 2, "succeeded")
    assert [each["attempt"] for each in record["history"]] == [1, 2]
    assert losses_of(it.cwd).keys() == set(range(1, 31)), "one curve"
    again = distrun("launch", "--resume", "latest", cwd=it.cwd)
    assert again.returncode == 2 and "has succeeded" in again.stderr


def test_a_signal_during_an_evaluation_needs_no_further_step(launched: Launch) -> None:
    settings = ("--steps", 30, "--batch-size", 8, "--seq-len", 32)
    it = launched("--nproc-per-node", 2, GPT, *settings, "--eval-every", 2, "--eval-batches", 900)
    wait_for_step(it.cwd, 2)  # it is logged before the evaluation begins
    it.process.send_signal(signal.SIGTERM)
    code, said = it.end(60)
    assert code == 143 and "preempted by SIGTERM, saved at step 2\n" in said, said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--resume", "none-such", "--"), "no run has the name 'none-such'"),
        (("--resume", "latest", "train.py"), "runs the script of that run"),
        (("--on", "crash=swop", SURVIVE, 1), "--on: crash=swop is not possible"),
        (("--on", "crahs=stop", SURVIVE, 1), "--on: 'crahs' is no kind of failure"),
        (("--on", "crash=observe", SURVIVE, 1), "crash=observe is not possible"),
        (("--spare", "-1", SURVIVE, 1), "--spare"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    distrun: Run, tmp_path: Path, words: tuple[object, ...], says: str
) -> None:
    (tmp_path / "runs").mkdir()
    done = distrun("launch", "--nproc-per-node", 1, SURVIVE, 1) if "--resume" in words else None
    assert done is None or done.returncode == 0
    result = distrun("launch", *(word for word in words if word != "--"))
    assert result.returncode == 2
    assert says in result.stderr
    assert len(result.stderr.splitlines()) <= 3


def test_a_dry_run_shows_what_is_done_about_each_failure(distrun: Run) -> None:
    result = distrun(
        *("launch", "--dry-run", "--nodes", 2, "--nproc-per-node", 1, "--spare", 1),
        *("--on", "crash=swap", SURVIVE, 1),
    )
    assert result.returncode == 0
    assert "# node 2 (node2): a spare, without ranks" in result.stdout
    assert "#   crash        swap     a rank failed" in result.stdout
    plain = distrun("launch", "--dry-run", "--nproc-per-node", 1, SURVIVE, 1)
    assert "--on FAILURE=ACTION" not in plain.stdout
