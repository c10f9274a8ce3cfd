"""When to save, where from to resume: sharded, asynchronous, and never the only copy lost.

Stands on torch.distributed.checkpoint
(https://docs.pytorch.org/docs/stable/distributed.checkpoint.html); the files are `distrun.dcp`'s.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Optimizer

from distrun.dcp.choose import (
    candidates,
    differing,
    newest_good,
    place_of,
    require_same_model,
)
from distrun.dcp.lock import DirectoryLock, take
from distrun.dcp.metadata import CheckpointError, read_metadata
from distrun.dcp.rng import restore_rng, rng_state
from distrun.dcp.saver import Saver, new_group
from distrun.dcp.state import materialise, stored_shapes, training_state, whole_shapes
from distrun.dcp.storage import Reader
from distrun.torch_private import SCALER_GROWTH
from distrun.train.config import TrainConfig
from distrun.train.progress import diverged
from distrun.train.setup import Place

_FREE = frozenset(
    (
        # what is told and kept, and where
        *("log_every", "eval_every", "eval_batches", "profile", "tensorboard", "sample", "save"),
        *("checkpoint_dir", "checkpoint_every", "checkpoint_minutes", "keep", "resume"),
        # how the same numbers are computed, and on which ranks
        *("deterministic", "compile", "recompute", "workers", "static_graph", "attention"),
        *("replicate", "reshard", "offload", "meta", "tp", "pp", "cp", "flow", "beside"),
        "loss_parallel",
    )
)
"""Settings that a resumed run may have of its own; with others it is not the run that it was."""


class Checkpoints:
    """Saves while training goes on, and finds the last good one.

    Args:
        config: The settings.
        place: This rank.
        parts: The model; under pipeline parallelism this rank's stages.
        optimizer: Of the parts.
        scaler: Of float16.

    Raises:
        CheckpointError: They cannot be saved where they are to be; on all ranks.
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
        self._parts, self._optimizer = parts, optimizer
        if isinstance(optimizer, ZeroRedundancyOptimizer):
            self._optimizer = optimizer.optim  # that of this rank's share
        self._directory, self._run = place_of(config.checkpoint_dir)
        values = dataclasses.asdict(config)
        self._settings = {name: v for name, v in values.items() if name not in _FREE}
        self._group = new_group()
        self._clock = new_group() if config.checkpoint_minutes else None
        self._saver: Saver | None = None
        self._lock: DirectoryLock | None = None
        if config.save and self._directory is not None:
            kept = {"run": self._run, "settings": self._settings}
            self._lock = take(self._directory, self._group, self._run, place.say)
            try:
                self._saver = Saver(self._directory, self._group, config.keep, kept, place.say)
            except CheckpointError:
                self._release()
                raise
        self._saved_at, self._saved_step = time.monotonic(), -1
        self._resumed_from = ""

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if error is None and self._saver is not None:
                self._saver.finish()
        finally:
            self._release()

    def _release(self) -> None:
        """Let other runs save there."""
        if self._lock is not None:
            self._lock.release()

    def last_good(self) -> str:
        """Return the last good checkpoint, "" if there is none; waits for one being written."""
        if self._saver is not None:
            self._saver.finish()
            return self._saver.latest or self._resumed_from
        return self._resumed_from

    def after(self, done: int, *, stop: bool) -> None:
        """Save where it is due: after N steps or minutes, at the end, when told to stop.

        Args:
            done: Steps that are done.
            stop: Training ends here, by a signal.

        Raises:
            CheckpointError: The last one could not be written; on all ranks.
        """
        if self._saver is None:
            return
        every = self._config.checkpoint_every
        last = stop or done == self._config.steps
        self._saver.look()
        if last or (every > 0 and done % every == 0) or self._minutes_are_over():
            self.save(done)
        if last:
            self._saver.finish(last=True)

    def _minutes_are_over(self) -> bool:
        if self._clock is None:
            return False
        over = time.monotonic() - self._saved_at >= 60 * self._config.checkpoint_minutes
        everywhere = torch.tensor(over)
        dist.broadcast(everywhere, src=0, group=self._clock)  # clocks differ: rank 0's decides
        return bool(everywhere)

    def save(self, done: int) -> None:
        """Copy the state to the CPU, and write it while training goes on.

        Raises:
            DivergedError: Some number of it is NaN or infinite; on all ranks.
        """
        if self._saver is None or done == self._saved_step:
            return
        self._saved_step, self._saved_at = done, time.monotonic()
        if not self._saver.save(done, lambda: self._state(done)):
            raise diverged(f"the weights are not finite after step {done}", self.last_good())

    def _state(self, done: int) -> dict[str, Tensor]:
        """Return all that a resumed run needs, every rank its part; tensors alone."""
        state = training_state(self._parts, self._optimizer)
        state["train.step"] = torch.tensor(done)
        if self._scaler.is_enabled():
            state["train.scale"] = torch.tensor(self._scaler.get_scale())
            state["train.growth"] = torch.tensor(self._scaler.state_dict()[SCALER_GROWTH])
        return state | {f"rng.{self._place.rank}.{k}": v for k, v in rng_state().items()}

    def resume(self) -> int:
        """Load what `--resume` says; return the steps that are done, 0 for a fresh start.

        Raises:
            CheckpointError: The named one cannot be used, or is of another model; on all ranks.
        """
        wanted = self._config.resume
        paths = candidates(wanted, self._directory, self._run)
        found: list[Any] = [newest_good(paths) if self._place.rank == 0 else None]
        dist.broadcast_object_list(found, src=0, group=self._group)
        path, problems = found[0]
        if path is None and wanted not in ("auto", "none"):
            raise CheckpointError(problems[-1])
        for problem in problems:
            self._place.say(f"not resumed from: {problem}")
        if path is None:
            return 0
        done = self._load(path)
        rest = "" if done < self._config.steps else f": nothing is left of {self._config.steps}"
        self._place.say(f"resumed from {path} after step {done}{rest}")
        if others := differing(path, self._settings):
            self._place.say(f"the run that saved it had other settings: {'; '.join(others)}")
        self._resumed_from, self._saved_step = str(path), done
        return done

    def _load(self, path: Path) -> int:
        materialise(self._optimizer)
        state = self._state(0)
        stored = read_metadata(path).state_dict_metadata
        require_same_model(path, whole_shapes(state, self._group), stored_shapes(stored))
        # Another world size has other ranks, another precision no scaler: what is not there stays.
        load(
            {k: v for k, v in state.items() if k in stored},
            storage_reader=Reader(path),
            process_group=self._group,
        )
        if "train.scale" in state and "train.scale" in stored:
            scale, growth = state["train.scale"].item(), int(state["train.growth"])
            kept = {"scale": scale, SCALER_GROWTH: growth}
            self._scaler.load_state_dict(self._scaler.state_dict() | kept)
        restore_rng(state, f"rng.{self._place.rank}.", stored)
        return int(state["train.step"])
