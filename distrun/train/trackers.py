"""Passes the numbers of steps on to the tracker that the script has open, or that `--track` names.

A tracker is never imported here, except for `--track`: one that is not in `sys.modules` is not
open. W&B, MLflow and Trackio know the run that is open; a SummaryWriter of TensorBoard is an object
of the script, which it hands over with `metrics.attach(writer)`.

An error of a tracker (no network, a full disk) is printed once, and ends the passing on, never the
training.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from distrun.env import RUN_DIR, TRACK

Values = Mapping[str, float]


class Writer(Protocol):
    """What is used of torch.utils.tensorboard.SummaryWriter."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Add a value of a step."""


class Trackers:
    """The trackers of this process."""

    def __init__(self) -> None:
        self._writers: list[Writer] = []
        self._broken: set[str] = set()
        self._asked_for = False

    def attach(self, writer: Writer) -> None:
        """Pass on to a writer of TensorBoard from now on."""
        if writer not in self._writers:
            self._writers.append(writer)

    def log(self, step: int, values: Values) -> None:
        """Pass on the numbers of a step."""
        if not self._asked_for:
            self._asked_for = True
            if not self._writers or os.environ.get(TRACK) != "tensorboard":
                self._attempt("--track", _open_asked_for)
        for number, writer in enumerate(self._writers):
            self._attempt(f"tensorboard {number}", lambda w=writer: _add(w, step, values))  # type: ignore[misc]
        for name, pass_on in _OPEN.items():
            if (module := sys.modules.get(name)) is not None:
                self._attempt(name, lambda m=module, p=pass_on: p(m, step, values))  # type: ignore[misc]

    def _attempt(self, name: str, action: Callable[[], Writer | None]) -> None:
        if name in self._broken:
            return
        try:
            if (opened := action()) is not None:
                self.attach(opened)
        except Exception as error:  # whatever a tracker raises: it must not end the training
            self._broken.add(name)
            words = str(error).strip().split("\n")[0]
            told = f"{type(error).__name__}: {words}"
            print(f"distrun: metrics no longer go to {name}: {told}", file=sys.stderr, flush=True)


def _add(writer: Writer, step: int, values: Values) -> None:
    for name, value in values.items():
        writer.add_scalar(name, value, step)


def _to_wandb(wandb: Any, step: int, values: Values) -> None:
    """Https://docs.wandb.ai/ref/python/log: `run` is None unless one is open."""
    if (run := getattr(wandb, "run", None)) is not None:
        run.log(dict(values), step=step)


def _to_mlflow(mlflow: Any, step: int, values: Values) -> None:
    """Https://mlflow.org/docs/latest/api_reference/python_api/mlflow.html#mlflow.active_run."""
    if (active := getattr(mlflow, "active_run", None)) is not None and active() is not None:
        mlflow.log_metrics(dict(values), step=step)


def _to_trackio(context: Any, step: int, values: Values) -> None:
    """Https://huggingface.co/docs/trackio; its open run is a context variable."""
    if (run := context.current_run.get()) is not None:
        run.log(dict(values), step=step)


_OPEN: Mapping[str, Callable[[Any, int, Values], None]] = {
    "wandb": _to_wandb,
    "mlflow": _to_mlflow,
    "trackio.context_vars": _to_trackio,
}
"""Module -> what passes on to its open run, if there is one."""


def _open_asked_for() -> Writer | None:
    """Open what `--track` names, on rank 0; close it when the process ends."""
    name = os.environ.get(TRACK, "")
    if not name or os.environ.get("RANK", "0") != "0":
        return None
    run_dir = Path(os.environ.get(RUN_DIR) or ".")
    return _OPENERS[name](run_dir)


def _open_tensorboard(run_dir: Path) -> Writer:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run_dir / "tensorboard"))
    atexit.register(writer.close)
    return writer


def _open_wandb(run_dir: Path) -> None:
    import wandb

    if wandb.run is None:
        wandb.init(project=os.environ.get("WANDB_PROJECT", "distrun"), name=run_dir.name)
        atexit.register(wandb.finish)


def _open_mlflow(run_dir: Path) -> None:
    import mlflow

    if mlflow.active_run() is None:
        mlflow.start_run(run_name=run_dir.name)
        atexit.register(mlflow.end_run)


def _open_trackio(run_dir: Path) -> None:
    import trackio

    trackio.init(project=os.environ.get("TRACKIO_PROJECT", "distrun"), name=run_dir.name)
    atexit.register(trackio.finish)


_OPENERS: Mapping[str, Callable[[Path], Writer | None]] = {
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
    "mlflow": _open_mlflow,
    "trackio": _open_trackio,
}
"""Value of `--track` -> what opens it."""
