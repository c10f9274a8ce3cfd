"""The progress of training: what all ranks agree on in a step, and what is printed."""

from __future__ import annotations

import math
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from distrun.peaks import peak_flops
from distrun.train import metrics, milestones, preempt
from distrun.train.config import TrainConfig
from distrun.train.setup import Place


class DivergedError(ArithmeticError):
    """A loss, gradient norm or weight is NaN or infinite; raised on all ranks."""


def diverged(what: str, good: str) -> DivergedError:
    """Return the error, with the last good checkpoint in its message; `good` is "" without one."""
    saved = f"the last good checkpoint is {good}" if good else "no checkpoint was saved"
    return DivergedError(f"{what}; {saved}")


class Progress:
    """Reports the numbers of each step: on the console, in metrics.jsonl and in TensorBoard.

    As a context manager it also handles the signals of `preempt`: the current step is finished,
    `stop` becomes true on all ranks in the same step, and the recipe saves and exits.

    Args:
        config: The settings.
        place: This rank.
        flops: FLOPs of forward and backward for one unit, for MFU.
        unit: What is counted, such as tokens.
    """

    def __init__(self, config: TrainConfig, place: Place, flops: int, unit: str = "tokens") -> None:
        self.stop = False
        self._config, self._place, self._flops, self._unit = config, place, flops, unit
        self._done = 0
        self._mark, self._first, self._seen = time.perf_counter(), -1, 0.0
        self._good: Callable[[], str] = lambda: ""
        self._profiler: torch.profiler.profile | None = None
        self._board: Any = None
        name = torch.cuda.get_device_name() if place.device.type == "cuda" else ""
        self._peak = peak_flops(name, config.precision)

    def __enter__(self) -> Progress:
        preempt.watch()
        if self._config.tensorboard and self._place.rank == 0:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(self._config.tensorboard)
        if self._config.profile and self._place.rank == 0:
            Path(self._config.profile).parent.mkdir(parents=True, exist_ok=True)
            steps = torch.profiler.schedule(wait=1, warmup=1, active=3, repeat=1)
            self._profiler = torch.profiler.profile(schedule=steps, on_trace_ready=self._trace)
            self._profiler.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._profiler is not None:
            self._profiler.stop()  # writes the trace if training ended before step 5
        if self._board is not None:
            self._board.close()
        preempt.unwatch()

    def _trace(self, profiler: torch.profiler.profile) -> None:
        profiler.export_chrome_trace(self._config.profile)

    def agree(
        self,
        step: int,
        loss: Tensor,
        seen: float,
        share: float | None = None,
        good: Callable[[], str] = lambda: "",
    ) -> float:
        """Return the mean loss over the ranks; set `stop` if any of them was asked to end.

        One all_reduce of 32 bytes carries both, a wish for a checkpoint, and the number of tokens
        or samples that all ranks have seen, which `log` reports: on any number of ranks it must
        equal the batch.

        Args:
            step: Counted from 0.
            loss: This rank's loss, a scalar without a graph.
            seen: Tokens (or other units) of this rank in this step; if n ranks work on the same
                ones, 1 / n of them.
            share: The weight of the loss; the shares of all ranks add up to 1. None: equal.
            good: Returns the last good checkpoint, for the error.

        Raises:
            DivergedError: The loss is NaN or infinite on some rank; raised on all.
        """
        self._good = good
        share = 1 / self._place.world_size if share is None else share
        # few and small operations: between two backward passes each one's code is out of the cache
        told = [0.0, *preempt.wishes(), seen]
        total = torch.tensor(told, dtype=torch.float64, device=loss.device)
        total[0].add_(loss, alpha=share)
        dist.all_reduce(total)
        mean, stop, save, self._seen = total.tolist()
        preempt.agree(bool(stop), bool(save))
        if not math.isfinite(mean):
            raise diverged(f"{self._story(loss)} in step {step + 1}", good())
        self.stop, self._done = bool(stop), step + 1
        return float(mean)

    def _story(self, loss: Tensor) -> str:
        bad = ~torch.isfinite(loss)
        marks = [torch.zeros_like(bad, dtype=torch.uint8) for _ in range(self._place.world_size)]
        dist.all_gather(marks, bad.to(torch.uint8))
        ranks = [rank for rank, mark in enumerate(marks) if mark.item()]
        whose = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"
        return f"the loss is {f'{loss.item():g}' if bad.item() else 'not finite'} on {whose}"

    def require_finite(self, step: int, grad_norm: Tensor) -> None:
        """Require a finite gradient norm, except in float16, where the scaler skips the step.

        Raises:
            DivergedError: The norm over all ranks is not finite; raised on all ranks.
        """
        if self._config.precision != "float16" and not torch.isfinite(grad_norm):
            raise diverged(f"the gradient norm is {grad_norm:g} in step {step + 1}", self._good())

    def log(self, step: int, *, loss: float, lr: float, grad_norm: Tensor, **more: float) -> None:
        """Report a finished step: print and write its numbers.

        Args:
            step: Counted from 0.
            loss: The mean over the ranks.
            lr: The learning rate.
            grad_norm: The norm over all ranks, before clipping.
            **more: Other numbers, equal on all ranks.
        """
        if self._first < 0:
            self._first = step
        if self._profiler is not None:
            self._profiler.step()
        now = time.perf_counter()
        rate, self._mark = self._seen / (now - self._mark), now
        if self._place.rank != 0:
            return
        values = {"loss": loss, "lr": lr, "grad_norm": float(grad_norm), **more}
        values |= {self._unit: self._seen, f"{self._unit}_per_s": rate}
        values |= {"memory_nbytes": memory_nbytes(self._place.device)}
        if self._peak is not None:
            values["mfu"] = self._flops * rate / self._peak / self._place.world_size
        self._write(step + 1, values)
        if step == self._first or (step + 1) % self._config.log_every == 0:
            self._print(step + 1, values, more)

    def _print(self, done: int, values: dict[str, float], more: dict[str, float]) -> None:
        mfu = f"  mfu {values['mfu']:.1%}" if "mfu" in values else ""
        others = "".join(f"  {name} {value:.4g}" for name, value in more.items())
        print(
            f"step {done}/{self._config.steps}  loss {values['loss']:.7f}"
            f"  norm {values['grad_norm']:.3f}  lr {values['lr']:.2e}"
            f"  {values[f'{self._unit}_per_s']:.0f} {self._unit}/s{mfu}"
            f"  {values['memory_nbytes'] / 2**30:.2f} GiB{others}",
            flush=True,
        )

    def evaluates(self, done: int) -> bool:
        """Return whether an evaluation is due: every N steps, and at the end."""
        every = self._config.eval_every
        if self.stop:
            return False  # the grace is for the checkpoint
        return done == self._config.steps or (every > 0 and done % every == 0)

    def leave_if_told(self) -> None:
        """End this process as SIGTERM would have; call after the checkpoint is written."""
        if self.stop:
            if self._place.rank == 0:
                milestones.preempted(self._done)
            raise SystemExit(128 + signal.SIGTERM)

    def evaluated(self, done: int, loss: Tensor, share: float | None = None) -> float:
        """Report an evaluation; return the mean loss over the ranks.

        Its all_reduce asks too whether a rank was told to end meanwhile, as that of `agree` does.

        Args:
            done: How many training steps are done.
            loss: This rank's mean over its part of the validation data.
            share: As for `agree`.

        Raises:
            DivergedError: The mean is not finite.
        """
        share = 1 / self._place.world_size if share is None else share
        told = torch.tensor([0.0, *preempt.wishes()], dtype=torch.float64, device=loss.device)
        told[0].add_(loss, alpha=share)
        dist.all_reduce(told)
        mean, stop, save = told.tolist()
        preempt.agree(bool(stop), bool(save) or preempt.save_wanted())
        self.stop = self.stop or bool(stop)
        if not math.isfinite(mean):
            raise diverged(f"the validation loss is {mean:g} after step {done}", self._good())
        if self._place.rank == 0:
            print(f"step {done}/{self._config.steps}  validation loss {mean:.7f}", flush=True)
            self._write(done, {"validation_loss": mean})
        self._mark = time.perf_counter()
        return float(mean)

    def _write(self, done: int, values: dict[str, float]) -> None:
        metrics.log(done, total_steps=self._config.steps, **values)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, done)


def memory_nbytes(device: torch.device) -> int:
    """Return the peak memory of this process: on the GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
