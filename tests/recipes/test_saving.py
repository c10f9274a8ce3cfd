"""While a checkpoint is written training goes on, and what is written is what it was."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distrun.comm import World
from distrun.dcp.storage import verify
from distrun.testing import RanksFailed, run_ranks
from tests.recipes.curves import Case, Log, Settings, imported, logged, train
from tests.recipes.launching import giving_way

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("warm_ranks"),
    pytest.mark.timeout(240),
]

STEPS, SAVED, GOES_ON, SCALE = 5, 2, 4, 1024.0
SETTINGS: Settings = {"steps": STEPS, "batch_size": 8, "seq_len": 16, "warmup_steps": 1}
SETTINGS |= {"eval_batches": 1, "eval_every": SAVED, "checkpoint_every": SAVED, "keep": 9}
LAYOUTS: dict[str, tuple[str, Settings]] = {
    "ddp": ("ddp_gpt", {}),
    "zero1": ("zero1", {}),
    "fsdp": ("fsdp", {}),
    "fsdp, ZeRO-2": ("fsdp", {"reshard": False}),
    "fsdp, float16": ("fsdp", {"precision": "float16"}),
    "tp": ("tp", {}),
    "pp": ("pp", {}),
    "moe, float16": ("moe", {"precision": "float16"}),
}
Draws = dict[int, list[float]]


def observed(
    case: Case, world: World, before_step: Callable[[int], None], scale: float | None = None
) -> tuple[Log, Draws]:
    """Train on this rank.

    Args:
        case: The run.
        world: All ranks.
        before_step: Called in each step.
        scale: That the scaler of float16 starts with; None: its own.

    Returns:
        What it reported, and for each step a number of each generator, and the scaler's state.
    """
    module, draws, scalers = imported(case.recipe), Draws(), list[Any]()
    learning_rate, scaler_of = module.optim.learning_rate, module.GradScaler

    def with_draws(step: int, config: Any) -> float:
        before_step(step)
        numbers = [torch.rand(1).item(), random.random(), random.gauss(0, 1)]
        numbers += [np.random.rand(), np.random.randn()]
        draws[step] = [*numbers, scalers[0].get_scale(), scalers[0]._get_growth_tracker()]
        return float(learning_rate(step, config))

    def with_scale(*args: Any) -> Any:
        scalers.append(scaler_of(*args))
        if scale is not None and scalers[0].is_enabled():
            scalers[0].load_state_dict(scalers[0].state_dict() | {"scale": scale})
        return scalers[0]

    module.optim.learning_rate, module.GradScaler = with_draws, with_scale
    try:
        return train(case, world), draws
    finally:
        module.optim.learning_rate, module.GradScaler = learning_rate, scaler_of


class HeldBack:
    """Holds what a rank writes back until a step is reached: the disk is that slow."""

    def __init__(self, directory: Path) -> None:
        import distrun.dcp.storage as storage

        self._storage, self._write, self._directory = storage, storage.save_file, directory
        self._go_on = threading.Event()

    def __enter__(self) -> HeldBack:
        self._storage.save_file = self._save_file  # type: ignore[assignment]
        return self

    def __exit__(self, *error: object) -> None:
        self._storage.save_file = self._write

    def _save_file(self, tensors: Any, file: Path) -> None:
        assert self._go_on.wait(60), "training waited for what was written"
        self._write(tensors, file)

    def before_step(self, step: int) -> None:
        if step == GOES_ON - 1:  # all of a step has passed since the save of SAVED began
            assert not list(self._directory.glob("step-*[0-9]"))
            self._go_on.set()


def seed_everything(seed: int) -> None:
    for each in (random.seed, np.random.seed, torch.manual_seed):
        each(seed)


def save_and_resume(kept: str, world: World) -> dict[str, Any]:
    """Train to the end with slow writes, then from the first checkpoint again."""
    found = {}
    with giving_way():
        for name, (recipe, settings) in LAYOUTS.items():
            directory = Path(kept) / name
            saving = {"save": True, "checkpoint_dir": str(directory)}
            seed_everything(100 + world.rank)  # as ranks that have drawn different numbers
            with HeldBack(directory) as slow:
                first = Case(name, recipe, SETTINGS | settings | saving)
                whole = observed(first, world, slow.before_step, scale=SCALE)
            seed_everything(0)
            resume = {"resume": str(directory / f"step-{SAVED:08d}")}
            again = Case(name, recipe, SETTINGS | settings | resume)
            found[name] = whole, observed(again, world, lambda step: None)
    return found


def test_training_goes_on_while_a_checkpoint_is_written_and_resumes_to_the_same_bits(
    tmp_path: Path,
) -> None:
    results = run_ranks(lambda world: save_and_resume(str(tmp_path), world), 2, "gloo", 200)
    names = ("loss", "grad_norm", "lr", "validation_loss", "dropped")
    for rank, found in enumerate(results):
        for name, ((log, draws), (log_again, draws_again)) in found.items():
            assert list(draws_again) == list(range(SAVED, STEPS)), name
            assert draws_again == {s: draws[s] for s in draws_again}, (name, rank)
            for key in names:
                expected = {s: v for s, v in log.get(key, {}).items() if s > SAVED}
                assert log_again.get(key, {}) == expected, (name, key)
            assert rank > 0 or len(log_again["loss"]) == STEPS - SAVED
    resumed = results[1]["fsdp, float16"][1][1]
    assert [numbers[-2:] for numbers in resumed.values()] == [[SCALE, 2], [SCALE, 3], [SCALE, 4]]
    mine, other = (found["ddp"][0][1] for found in results)
    assert mine != other, "ranks that draw the same could not show whose state was restored"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that takes one checkpoint of 3 MB, and not two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", disk]).returncode:
        pytest.skip("this container may not mount a tmpfs")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.root
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a tmpfs")
def test_a_full_disk_is_told_and_costs_no_step_and_not_the_checkpoint_before(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saving = {"save": True, "checkpoint_dir": str(small_disk)}
    with pytest.raises(RanksFailed) as failed:
        logged([Case("full", "ddp_gpt", SETTINGS | saving)], 2)
    out = capsys.readouterr().out
    assert f"step {STEPS}/{STEPS}  validation loss " in out  # all steps were made
    (told,) = (line for line in out.splitlines() if "training goes on" in line)
    errors = [str(failure.error) for failure in failed.value.failures]
    assert len(errors) == 2, "who wants the last checkpoint learns of it by the exit code"
    for step, line in ((STEPS - 1, told), *((STEPS, error) for error in errors)):
        assert f"step-{step:08d} could not be written: " in line
        assert "No space left on device" in line
    assert [path.name for path in small_disk.iterdir()] == [f"step-{SAVED:08d}"]  # no half ones
    assert verify(small_disk / f"step-{SAVED:08d}") == SAVED
