"""A run that is broken off goes on as if nothing had been, from the last whole checkpoint."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import only_run, wait_until
from tests.recipes.launching import RECIPES, ended, run_python, started

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]
STEPS, EVERY = 24, 5
WORDS = ("--steps", STEPS, "--seq-len", 32, "--eval-every", 0, "--eval-batches", 1)
SAVING = ("--checkpoint-every", EVERY, "--deterministic", "--log-every", 1)


def logged(run: Path, name: str = "loss") -> dict[int, float]:
    """Return what a run has logged; of a step that was trained twice, the last."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return {e["step"]: e[name] for e in map(json.loads, lines) if name in e}


def launched(cwd: Path, recipe: str, *words: object, options: tuple[object, ...] = ()) -> Path:
    """Launch a recipe on two ranks, to its end; return its run directory."""
    process = launching(cwd, recipe, *words, options=options)
    end = ended(process, 200)
    assert end.code == 0, end.err
    return only_run(cwd)


def launching(
    cwd: Path, recipe: str, *words: object, options: tuple[object, ...] = ()
) -> subprocess.Popen[str]:
    cwd.mkdir(exist_ok=True)
    launch = ("-m", "distrun", "launch", "--nproc-per-node", 2, *options)
    return started(cwd, *launch, RECIPES / f"{recipe}.py", *WORDS, *words)


def events(cwd: Path, name: str) -> list[dict[str, Any]]:
    """Return the events of one name in the only run of a directory."""
    lines = (only_run(cwd) / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def has_trained(cwd: Path, step: int) -> bool:
    try:
        return step in logged(only_run(cwd))
    except (OSError, ValueError):  # not begun yet
        return False


@pytest.mark.parametrize("recipe", ["ddp_gpt", "zero1", "fsdp"])
def test_a_killed_run_that_restarts_has_the_losses_of_one_that_was_not(
    tmp_path: Path, recipe: str
) -> None:
    step, rank = random.randint(2, STEPS - 3), random.randint(0, 1)
    killed = f"rank {rank} killed after step {step}"
    whole = logged(launched(tmp_path / "whole", recipe, *SAVING))
    broken = tmp_path / "broken"
    process = launching(broken, recipe, *SAVING, options=("--max-restarts", 1))
    wait_until(lambda: has_trained(broken, step), 120, f"step {step}")
    (pid,) = (e["pid"] for e in events(broken, "rank_started") if e["rank"] == rank)
    os.kill(pid, signal.SIGKILL)
    end = ended(process, 200)
    assert end.code == 0, f"{killed}: {end.err}"
    if step >= 2 * EVERY:  # the checkpoint before it must have been finished
        assert "resumed from" in end.out, f"{killed}: {end.out}"
    assert logged(only_run(broken)) == whole, killed
    assert len(whole) == STEPS


def test_sigterm_saves_on_all_ranks_and_the_next_run_goes_on(tmp_path: Path) -> None:
    whole = logged(launched(tmp_path / "whole", "fsdp", "--deterministic"))
    first = tmp_path / "first"
    kept = ("--deterministic", "--checkpoint-dir", tmp_path / "kept")
    process = launching(first, "fsdp", *kept)
    wait_until(lambda: has_trained(first, 2), 120, "step 2")
    process.send_signal(signal.SIGTERM)
    assert ended(process).code == 128 + signal.SIGTERM
    before = logged(only_run(first))
    (checkpoint,) = (tmp_path / "kept").iterdir()
    assert checkpoint.name == f"step-{max(before):08d}"
    second = launched(tmp_path / "second", "fsdp", *kept)
    assert before | logged(second) == whole


def test_a_checkpoint_of_one_strategy_goes_on_under_others(tmp_path: Path) -> None:
    """By the command; test_resharding.py has the other layouts."""
    kept = tmp_path / "kept"
    saving = ("--checkpoint-dir", kept, "--checkpoint-every", 12, "--resume", "none")
    reference = logged(launched(tmp_path / "zero1", "zero1", *saving))
    middle = kept / "step-00000012"
    for recipe, nproc in {"single": 1, "fsdp": 4}.items():
        cwd = tmp_path / recipe
        options = ("--nproc-per-node", nproc, "--no-check")
        run = launched(cwd, recipe, "--resume", middle, "--no-save", options=options)
        found = logged(run)
        assert min(found) == 13
        expected = [reference[step] for step in found]
        assert list(found.values()) == pytest.approx(expected, abs=2e-5), recipe


@pytest.mark.parametrize("recipe", ["tp", "pp", "fsdp"])
def test_what_a_sharded_recipe_saves_evaluates_the_same_in_one_process(
    tmp_path: Path, recipe: str
) -> None:
    kept = tmp_path / "kept"
    run = launched(tmp_path / recipe, recipe, "--checkpoint-dir", kept, "--steps", 6)
    (sharded,) = logged(run, "validation_loss").values()
    again = run_python(
        tmp_path, RECIPES / "single.py", *WORDS, "--steps", 7, "--lr", 0, "--resume",
        kept / "step-00000006", "--weight-decay", 0,
    )  # fmt: skip
    assert again.code == 0, again.err
    assert f"validation loss {sharded:.5f}"[:-1] in again.out


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of the reference."""
    cwd = tmp_path_factory.mktemp("kept")
    words = ("--steps", 4, "--checkpoint-every", 2, "--checkpoint-dir", cwd / "all")
    run = run_python(cwd, RECIPES / "single.py", *WORDS, *words)
    assert run.code == 0, run.err
    return cwd / "all"


def flip(path: Path) -> None:
    data = bytearray((path / "rank-00000.safetensors").read_bytes())
    data[-7] ^= 1
    (path / "rank-00000.safetensors").write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path / "rank-00000.safetensors", 1000)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a flipped bit": (flip, "rank-00000.safetensors is not what was written"),
    "a truncated file": (truncate, "rank-00000.safetensors has 1000 bytes"),
    "a missing file": (
        lambda path: (path / ".metadata").unlink(),
        ".metadata cannot be read: No such file",
    ),
}


@pytest.fixture
def damaged(kept: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    subprocess.run(["cp", "-a", kept, tmp_path / "copy"], check=True)
    return tmp_path / "copy"


@pytest.mark.parametrize("damage", DAMAGES)
def test_auto_passes_a_damaged_checkpoint_over_and_says_so(damaged: Path, damage: str) -> None:
    harm, said = DAMAGES[damage]
    harm(damaged / "step-00000004")
    words = ("--steps", 5, "--checkpoint-dir", damaged, "--no-save")
    run = run_python(damaged, RECIPES / "single.py", *WORDS, *words)
    assert run.code == 0, run.err
    assert "not resumed from: " in run.out and said in run.out
    assert f"resumed from {damaged / 'step-00000002'} after step 2" in run.out


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_that_was_named_ends_every_rank(damaged: Path, damage: str) -> None:
    harm, said = DAMAGES[damage]
    harm(damaged / "step-00000004")
    cwd = damaged.parent / "run"
    end = ended(launching(cwd, "ddp_gpt", "--resume", damaged / "step-00000004"))
    assert end.code == 1
    assert "CheckpointError" in end.err and said in end.err
    ends = {event["rank"]: event for event in events(cwd, "rank_ended")}
    assert ends.keys() == {0, 1}, "no rank goes on without the other"
    for rank, event in ends.items():
        assert event["report"]["type"] == "CheckpointError", rank
        assert said in event["report"]["message"], rank


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "small"), "is of another model: "),
        (("--resume", "nowhere"), "nowhere is not a checkpoint"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(
    kept: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    resume = ("--resume", kept / "step-00000004")
    run = run_python(tmp_path, RECIPES / "single.py", *WORDS, *resume, *words)
    assert run.code == 1
    assert said in run.err.strip().splitlines()[-1]


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    words = ("--steps", 7, "--checkpoint-every", 2, "--keep", 3, "--checkpoint-dir", "kept")
    run = run_python(tmp_path, RECIPES / "single.py", *WORDS, *words)
    assert run.code == 0, run.err
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert names == ["step-00000004", "step-00000006", "step-00000007"]
