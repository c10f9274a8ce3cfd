"""What a checkpoint may hold, where it may be, and which one a broken run is told of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from distrun.comm import World
from distrun.dcp.choose import about, candidates
from distrun.dcp.lock import NAME, DirectoryLock
from distrun.dcp.metadata import CheckpointError
from distrun.dcp.storage import verify
from distrun.testing import RanksFailed, run_ranks
from tests.recipes.curves import Case, Settings, imported, train
from tests.recipes.launching import RECIPES, run_python

pytestmark = [pytest.mark.usefixtures("warm_ranks"), pytest.mark.timeout(120)]
SETTINGS: Settings = {"steps": 8, "batch_size": 4, "seq_len": 16, "eval_every": 0}
SETTINGS |= {"eval_batches": 1, "save": True}
Bent = Callable[[Tensor], Tensor]


def not_a_number(loss: Tensor) -> Tensor:
    return loss * float("nan")


def infinite_gradient(loss: Tensor) -> Tensor:
    loss.register_hook(lambda grad: grad * float("inf"))
    return loss


def train_bent(world: World, settings: Settings, step: int, bend: Bent, rank: int = 1) -> None:
    """Train; on one rank the loss of a step, counted from 1, is bent."""
    module, calls = imported("ddp_gpt"), 0
    plain = module.loss

    def loss(*arguments: Any) -> Tensor:
        nonlocal calls
        calls += 1
        found: Tensor = plain(*arguments)
        return bend(found) if (calls, world.rank) == (step, rank) else found

    module.loss = loss
    try:
        train(Case("bent", "ddp_gpt", SETTINGS | settings), world)
    finally:
        module.loss = plain


def errors_of(fn: Callable[[World], object]) -> list[str]:
    """Run on two ranks, which both fail; return how."""
    with pytest.raises(RanksFailed) as failed:
        run_ranks(fn, 2, "gloo", 60)
    assert len(failed.value.failures) == 2, failed.value
    return [str(failure.error) for failure in failed.value.failures]


@pytest.mark.parametrize("every", [4, 2])
def test_a_loss_that_is_none_names_the_checkpoint_that_was_just_written(
    tmp_path: Path, every: int
) -> None:
    settings = {"checkpoint_dir": str(tmp_path), "checkpoint_every": every}
    for error in errors_of(lambda world: train_bent(world, settings, 6, not_a_number)):
        assert " on rank 1 in step 6; " in error
        assert error.endswith(f"the last good checkpoint is {tmp_path / 'step-00000004'}")


@pytest.mark.parametrize("step", [4, 8])
def test_weights_that_are_none_are_never_saved(tmp_path: Path, step: int) -> None:
    settings = {"checkpoint_dir": str(tmp_path), "checkpoint_every": 2}
    for error in errors_of(lambda world: train_bent(world, settings, step, infinite_gradient)):
        assert error.startswith(f"the gradient norm is nan in step {step}; ")
    last = max(path.name for path in tmp_path.iterdir())
    assert last == f"step-{step - 2:08d}"
    assert verify(tmp_path / last) == step - 2


def test_float16_gets_over_an_infinite_gradient_in_its_last_step_too(tmp_path: Path) -> None:
    settings = {"checkpoint_dir": str(tmp_path), "precision": "float16"}
    run_ranks(lambda world: train_bent(world, settings, 8, infinite_gradient), 2, "gloo", 60)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000008"]


def test_what_the_clock_saves_does_not_meet_the_writer_of_the_one_before(tmp_path: Path) -> None:
    settings = {"checkpoint_dir": str(tmp_path), "checkpoint_minutes": 1e-5, "keep": 9}
    run_ranks(lambda world: train_bent(world, settings, 0, not_a_number), 2, "gloo", 60)
    assert len(list(tmp_path.iterdir())) == SETTINGS["steps"]


def test_a_directory_that_ranks_do_not_share_is_refused_before_the_first_step(
    tmp_path: Path,
) -> None:
    def elsewhere(world: World) -> None:
        (tmp_path / str(world.rank)).mkdir()
        os.chdir(tmp_path / str(world.rank))
        train_bent(world, {"checkpoint_dir": "kept"}, 1, not_a_number)

    for error in errors_of(elsewhere):
        assert "a directory that all nodes share: rank 1 does not see what rank 0" in error
    assert list((tmp_path / "0" / "kept").iterdir()) == []


def test_a_directory_that_cannot_be_made_is_refused_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = {"checkpoint_dir": str(tmp_path / "file" / "kept")}
    for error in errors_of(lambda world: train_bent(world, settings, 1, not_a_number)):
        assert error.startswith("no checkpoint can be written: ")
        assert error.endswith("(--no-save writes none)")


def test_after_the_first_step_no_axis_waits_longer_than_a_step_may_take() -> None:
    def timeouts(world: World) -> list[tuple[bool, float]]:
        found = {}

        def look(loss: Tensor) -> Tensor:
            for group in dist.distributed_c10d._world.pg_map:
                options = group._get_backend(torch.device("cpu")).options
                found[group.group_name] = (
                    group.group_desc == "checkpoints",
                    options._timeout.total_seconds(),
                )
            return loss

        train_bent(world, {"save": False}, 8, look, rank=world.rank)
        return sorted(found.values())

    for found in run_ranks(timeouts, 2, "gloo", 60, check=False):
        assert (True, 1800.0) in found
        assert sum(limit_s == 120.0 for saves, limit_s in found if not saves) >= 2
        assert {limit_s for saves, limit_s in found if not saves} == {120.0}


OTHER: dict[str, tuple[object, object]] = {
    "batch_size": (4, 8),
    "weight_decay": (0.1, 0.2),
    "clip": (1.0, 0.5),
    "min_lr": (0.1, 0.2),
    "beta2": (0.95, 0.9),
    "accumulate": (1, 2),
    "precision": ("float32", "bfloat16"),
    "capacity_factor": (0.0, 1.25),
    "balance": (0.01, 0.1),
}


def test_every_setting_that_the_saved_run_had_otherwise_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    saving = {"checkpoint_dir": str(tmp_path), "batch_size": 4, "steps": 2}
    free = {"eval_every": 1, "log_every": 7, "recompute": "full", "keep": 5, "workers": 1}
    changed = {name: is_now for name, (_, is_now) in OTHER.items()}

    def run_three(world: World) -> None:
        for more in ({}, free, changed):
            case = Case("moe", "moe", SETTINGS | saving | {"resume": "auto"} | more)
            train(case, world)

    run_ranks(run_three, 1, "gloo", 60)
    told = [line for line in capfd.readouterr().out.splitlines() if "other settings" in line]
    assert len(told) == 1, "free settings may differ without a word"
    for name, (was, is_now) in OTHER.items():
        assert f"{name} was {was}, is {is_now}" in told[0]


def test_a_second_run_in_the_same_directory_is_refused_with_the_firsts_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTRUN_RUN_DIR", "runs/second")
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDS, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert first.stdout is not None and first.stdout.readline() == b"holds\n"
        settings = {"checkpoint_dir": str(tmp_path), "checkpoint_every": 2}
        errors = errors_of(lambda world: train_bent(world, settings, 0, not_a_number))
        for error in errors:
            assert f"{tmp_path} is in use: run runs/first (process {first.pid} on " in error
        assert (tmp_path / NAME).is_file(), "the first one still has it"
        # of the same name: a node that was lost may live on, and its lock with it
        DirectoryLock(tmp_path, "runs/first", restarted=True, say=print)
        with pytest.raises(CheckpointError, match="is in use"):
            DirectoryLock(tmp_path, "runs/first", restarted=False, say=print)
    finally:
        first.kill()
        first.communicate()
    run_ranks(lambda world: train_bent(world, settings, 0, not_a_number), 2, "gloo", 60)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"step-00000006", "step-00000008"}, "a killed run keeps no lock"


HOLDS = """
import sys
from pathlib import Path
from distrun.dcp.lock import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]), "runs/first", restarted=False, say=print)
print("holds", flush=True)
sys.stdin.read()
"""


def test_a_child_that_was_forked_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A DataLoader's worker may outlive its rank."""
    script = HOLDS.replace("sys.stdin.read()", "import os\nos.fork() or sys.stdin.read()")
    first = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert first.stdout is not None and first.stdout.readline() == b"holds\n"
    try:
        assert first.wait(20) == 0, "the parent alone has ended: the child reads on"
        DirectoryLock(tmp_path, "second", restarted=False, say=print).release()
    finally:
        first.communicate()
    assert list(tmp_path.iterdir()) == []


def test_a_restarted_world_goes_on_from_its_own_run_whatever_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in ("first", "second"):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", run)
        monkeypatch.delenv("DISTRUN_RUN_DIR", raising=False)
        words = ("--seq-len", 16, "--eval-batches", 1, "--steps", 1 + (run == "second"))
        script = (
            "import os, runpy, sys\n"
            f"os.environ['TORCHELASTIC_RUN_ID'] = {run!r}\n"
            f"sys.path.insert(0, {str(RECIPES)!r})\n"
            f"runpy.run_path({str(RECIPES / 'single.py')!r}, run_name='__main__')\n"
        )
        saving = ("--checkpoint-dir", tmp_path / "kept", "--resume", "none")
        done = run_python(tmp_path, "-c", script, *words, *saving)
        assert done.code == 0, done.err
    theirs, mine = (tmp_path / "kept" / f"step-0000000{n}" for n in (1, 2))
    assert [about(path)["run"] for path in (theirs, mine)] == ["first", "second"]
    kept, elsewhere = tmp_path / "kept", str(tmp_path / "elsewhere")
    assert candidates("auto", kept, "second") == [theirs, mine]
    assert candidates(elsewhere, kept, "second") == [Path(elsewhere)]
    assert candidates("none", kept, "second") == []
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert candidates(elsewhere, kept, "second") == [Path(elsewhere), mine]
    assert candidates("none", kept, "second") == [mine]
    assert candidates("none", kept, "") == []  # torchrun's runs have no name unless they get one
