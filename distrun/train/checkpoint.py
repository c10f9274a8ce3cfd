"""When to save and what to resume from: sharded, asynchronous; a good copy is always kept.

It uses torch.distributed.checkpoint
(https://docs.pytorch.org/docs/stable/distributed.checkpoint.html); `distrun.dcp` has the files.
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
from distrun.train import metrics, milestones, preempt
from distrun.train.config import TrainConfig
from distrun.train.progress import diverged
from distrun.train.setup import Place

_FREE = frozenset(
    (
        # what is printed and kept, and where
        *("log_every", "eval_every", "eval_batches", "profile", "tensorboard", "sample", "save"),
        *("checkpoint_dir", "checkpoint_every", "checkpoint_minutes", "keep", "resume"),
        # how and on which ranks the same numbers are computed
        *("deterministic", "compile", "recompute", "workers", "static_graph", "attention"),
        *("replicate", "reshard", "offload", "meta", "tp", "pp", "cp", "flow", "beside"),
        "loss_parallel",
    )
)
"""Settings that may differ in a resumed run; a difference in any other one is printed."""


class Checkpoints:
    """Saves checkpoints while training continues, and finds the last good one.

    Args:
        config: The settings.
        place: This rank.
        parts: The model; under pipeline parallelism this rank's stages.
        optimizer: The optimizer of the parts.
        scaler: The gradient scaler of float16.

    Raises:
        CheckpointError: The directory cannot be used; raised on all ranks.
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
            self._optimizer = optimizer.optim  # of this rank's part
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
                # not a method of self: a cycle would keep the group beyond its end
                report = milestones.saved if place.rank == 0 else _report_nothing
                self._saver = Saver(
                    self._directory, self._group, config.keep, kept, place.say, report
                )
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
        """Release the lock: other runs may save there."""
        if self._lock is not None:
            self._lock.release()

    def last_good(self) -> str:
        """Return the last good checkpoint, "" if there is none; wait for one in progress."""
        if self._saver is not None:
            self._saver.finish()
            return self._saver.latest or self._resumed_from
        return self._resumed_from

    def after(self, done: int, *, stop: bool) -> None:
        """Save if it is due: after N steps or minutes, at the end, or on a stop signal.

        Args:
            done: How many steps are done.
            stop: Training ends here, by a signal.

        Raises:
            CheckpointError: The last one could not be written; raised on all ranks.
        """
        if self._saver is None:
            return
        every = self._config.checkpoint_every
        last = stop or done == self._config.steps
        begun, saved_step = time.perf_counter(), self._saved_step
        self._saver.look()
        due = last or (every > 0 and done % every == 0) or preempt.save_wanted()
        if due or self._minutes_are_over():
            self.save(done)
        if last:
            self._saver.finish(last=True)
        if self._saved_step != saved_step and self._place.rank == 0:
            waited_s = time.perf_counter() - begun  # what training has waited for it
            metrics.log(done, total_steps=self._config.steps, save_s=waited_s)

    def _minutes_are_over(self) -> bool:
        if self._clock is None:
            return False
        over = time.monotonic() - self._saved_at >= 60 * self._config.checkpoint_minutes
        everywhere = torch.tensor(over)
        dist.broadcast(everywhere, src=0, group=self._clock)  # clocks differ: rank 0 decides
        return bool(everywhere)

    def save(self, done: int) -> None:
        """Copy the state to the CPU, and write it while training continues.

        Raises:
            DivergedError: A number in it is NaN or infinite; raised on all ranks.
        """
        if self._saver is None or done == self._saved_step:
            return
        self._saved_step, self._saved_at = done, time.monotonic()
        if not self._saver.save(done, lambda: self._state(done)):
            raise diverged(f"the weights are not finite after step {done}", self.last_good())

    def _state(self, done: int) -> dict[str, Tensor]:
        """Return all that a resumed run needs, on each rank its part; only tensors."""
        state = training_state(self._parts, self._optimizer)
        state["train.step"] = torch.tensor(done)
        if self._scaler.is_enabled():
            state["train.scale"] = torch.tensor(self._scaler.get_scale())
            state["train.growth"] = torch.tensor(self._scaler.state_dict()[SCALER_GROWTH])
        return state | {f"rng.{self._place.rank}.{k}": v for k, v in rng_state().items()}

    def resume(self) -> int:
        """Load what `--resume` says; return how many steps are done, 0 without a checkpoint.

        Raises:
            CheckpointError: The given one cannot be used, or is of another model; on all ranks.
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
            self._report_beginning(0)
            return 0
        done = self._load(path)
        rest = "" if done < self._config.steps else f": all {self._config.steps} steps are done"
        self._place.say(f"resumed from {path} after step {done}{rest}")
        if others := differing(path, self._settings):
            self._place.say(f"the run that saved it had other settings: {'; '.join(others)}")
        self._resumed_from, self._saved_step = str(path), done
        self._report_beginning(done)
        return done

    def _report_beginning(self, done: int) -> None:
        if self._place.rank == 0:
            milestones.begun(done)

    def _load(self, path: Path) -> int:
        materialise(self._optimizer)
        state = self._state(0)
        stored = read_metadata(path).state_dict_metadata
        require_same_model(path, whole_shapes(state, self._group), stored_shapes(stored))
        # Another world size has other ranks, another precision no scaler: those keep their values.
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


def _report_nothing(done: int, time_s: float) -> None:
    pass
