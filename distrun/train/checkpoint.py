"""When to save, where from to resume: sharded, asynchronous, and never the only copy lost.

Stands on torch.distributed.checkpoint
(https://docs.pytorch.org/docs/stable/distributed.checkpoint.html); the files are `distrun.dcp`'s.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import AsyncSaveResponse, async_save
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Optimizer

from distrun.dcp.choose import committed, drop_old, newest_good, require_same_model
from distrun.dcp.rng import rng_state, set_rng_state
from distrun.dcp.state import materialise, training_state
from distrun.dcp.storage import CheckpointError, Reader, Writer, read_metadata
from distrun.env import RUN_DIR
from distrun.train.config import TrainConfig
from distrun.train.setup import Place


class Checkpoints:
    """Saves while training goes on, and finds the last good one.

    Args:
        config: The settings.
        place: This rank.
        parts: The model; under pipeline parallelism this rank's stages.
        optimizer: Of the parts.
        scaler: Of float16.
    """

    def __init__(
        self,
        config: TrainConfig,
        place: Place,
        parts: Sequence[nn.Module],
        optimizer: Optimizer,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self._config, self._place, self._scaler = config, place, scaler
        self._parts = parts
        self._optimizer = optimizer
        if isinstance(optimizer, ZeroRedundancyOptimizer):
            self._optimizer = optimizer.optim  # that of this rank's share
        self._directory = _directory(config)
        # Of its own: DCP's collectives in its thread must not meet those of training.
        self._group = dist.new_group(backend="gloo")
        self._pending: Future[Any] | AsyncSaveResponse | None = None
        self._saved_at, self._saved_step = time.monotonic(), -1
        self.latest = ""
        """The last good checkpoint, "" if there is none."""

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self._finish_pending()

    def after(self, done: int, *, stop: bool) -> None:
        """Save where it is due: after N steps or minutes, at the end, when told to stop.

        Args:
            done: Steps that are done.
            stop: Training ends here, by a signal.
        """
        config = self._config
        last = stop or done == config.steps
        by_steps = config.checkpoint_every > 0 and done % config.checkpoint_every == 0
        if (
            config.save
            and self._directory is not None
            and (last or by_steps or self._minutes_are_over())
        ):
            self.save(done)
        if last:
            self._finish_pending()

    def _minutes_are_over(self) -> bool:
        if not self._config.checkpoint_minutes:
            return False
        over = time.monotonic() - self._saved_at >= 60 * self._config.checkpoint_minutes
        everywhere = torch.tensor(over)
        dist.broadcast(everywhere, src=0, group=self._group)  # clocks differ: rank 0's decides
        return bool(everywhere)

    def save(self, done: int) -> None:
        """Copy the state to the CPU, and write it while training goes on."""
        self._finish_pending()
        if done == self._saved_step:
            return
        self._saved_step, self._saved_at = done, time.monotonic()
        path = self._path()
        if self._place.rank == 0:  # what an earlier attempt has left
            shutil.rmtree(path.with_name(path.name + ".partial"), ignore_errors=True)
        dist.barrier(group=self._group)
        writer = Writer(path, done, lambda: drop_old(path.parent, self._config.keep))
        state = self._state(done)
        self._pending = async_save(state, storage_writer=writer, process_group=self._group)

    def _finish_pending(self) -> None:
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        path = self._path()
        try:
            assert isinstance(pending, Future)
            pending.result()
            self.latest = str(path)
        except (Exception, CheckpointException) as error:  # whatever the file system said
            cause = _root_cause(error)
            self._place.say(f"checkpoint {path} could not be written: {cause}; training goes on")
            shutil.rmtree(path.with_name(path.name + ".partial"), ignore_errors=True)

    def _path(self) -> Path:
        assert self._directory is not None  # asked only where something is saved
        return self._directory / f"step-{self._saved_step:08d}"

    def _state(self, done: int) -> dict[str, Tensor]:
        """Return all that a resumed run needs, every rank its part; tensors alone."""
        state = training_state(self._parts, self._optimizer)
        state["train.step"] = torch.tensor(done)
        if self._scaler.is_enabled():
            state["train.scale"] = torch.tensor(self._scaler.get_scale())
            state["train.growth"] = torch.tensor(self._scaler._get_growth_tracker())
        return state | {f"rng.{self._place.rank}.{k}": v for k, v in rng_state().items()}

    def resume(self) -> int:
        """Load what `--resume` says; return the steps that are done, 0 for a fresh start.

        Raises:
            CheckpointError: The named one cannot be used, or is of another model; on all ranks.
        """
        wanted = self._config.resume
        if wanted == "none":
            return 0
        named = [] if wanted == "auto" else [Path(wanted)]
        there = committed(self._directory) if self._directory else []
        found: list[Any] = [newest_good(named or there) if self._place.rank == 0 else None]
        dist.broadcast_object_list(found, src=0, group=self._group)
        path, problems = found[0]
        if path is None and named:
            raise CheckpointError(problems[0])
        for problem in problems:
            self._place.say(f"not resumed from: {problem}")
        if path is None:
            return 0
        done = self._load(path)
        rest = "" if done < self._config.steps else f": nothing is left of {self._config.steps}"
        self._place.say(f"resumed from {path} after step {done}{rest}")
        self.latest, self._saved_step = str(path), done
        return done

    def _load(self, path: Path) -> int:
        materialise(self._optimizer)
        state = self._state(0)
        stored = read_metadata(path).state_dict_metadata
        there = {
            name.removeprefix("model."): tuple(entry.size)
            for name, entry in stored.items()
            if name.startswith("model.") and isinstance(entry, TensorStorageMetadata)
        }
        require_same_model(path, self._shapes(state), there)
        # Another world size has other ranks, another precision no scaler: what is not there stays.
        load(
            {k: v for k, v in state.items() if k in stored},
            storage_reader=Reader(path),
            process_group=self._group,
        )
        if "train.scale" in state and "train.scale" in stored:
            scale, growth = state["train.scale"].item(), int(state["train.growth"])
            kept = {"scale": scale, "_growth_tracker": growth}
            self._scaler.load_state_dict(self._scaler.state_dict() | kept)
        mine = f"rng.{self._place.rank}."
        rng = {k.removeprefix(mine): v for k, v in state.items() if k.startswith(mine)}
        if all(mine + key in stored for key in rng):
            set_rng_state(rng)
        return int(state["train.step"])

    def _shapes(self, state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of the whole model: under a pipeline each rank has a part."""
        mine = {k[6:]: tuple(v.shape) for k, v in state.items() if k.startswith("model.")}
        everyone: list[Any] = [None] * self._place.world_size
        dist.all_gather_object(everyone, mine, group=self._group)
        return {name: shape for part in everyone for name, shape in part.items()}


def _directory(config: TrainConfig) -> Path | None:
    run = os.environ.get(RUN_DIR)
    named = config.checkpoint_dir or (f"{run}/checkpoints" if run else "")
    return Path(named) if named else None


def _root_cause(error: BaseException) -> str:
    if isinstance(error, CheckpointException):  # DCP's own, on every rank; no Exception
        error = next(iter(error.failures.values()))[0]
    return str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
