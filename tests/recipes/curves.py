"""Runs recipes on ranks of a warm server, and reads the numbers they report, to the last bit."""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch

from distrun.comm import World
from distrun.env import REPORT, TorchrunEnv
from distrun.testing import run_ranks
from distrun.train.setup import Place
from tests.recipes.launching import RECIPES
from tests.recipes.reference import Curve

Settings = dict[str, Any]


class Case(NamedTuple):
    """One training run on some ranks."""

    name: str
    recipe: str
    settings: Settings
    gradient_scale: float = 1.0
    """1, or a fault: every gradient of every rank is multiplied by it before the norm is taken."""


def curves(cases: Sequence[Case], ranks: int, timeout_s: float = 110) -> dict[str, Curve]:
    """Train each case on so many ranks, one behind the other; return what rank 0 reported."""
    found = run_ranks(lambda world: train_all(cases, world), ranks, "gloo", timeout_s)[0]
    return {name: curve_of(reports) for name, reports in found.items()}


def curve_of(reports: Sequence[Settings]) -> Curve:
    """Return the losses and norms among the reports of a run."""
    steps = [r["values"] for r in reports if "loss" in r["values"]]
    return Curve([s["loss"] for s in steps], [s["grad_norm"] for s in steps])


def train_all(cases: Sequence[Case], world: World) -> dict[str, list[Settings]]:
    """Train on this rank; return what it reported."""
    return {case.name: train(case, world) for case in cases}


def train(case: Case, world: World) -> list[Settings]:
    """Train one case on this rank."""
    module = imported(case.recipe)
    config = module.Config(**{"save": False, "resume": "none", **case.settings})
    clip = module.optim.clip_grad_norm
    module.optim.clip_grad_norm = scaled(clip, case.gradient_scale)
    try:
        return reports_of(lambda: module.train(config, Place(TorchrunEnv.read(), world)))
    finally:
        module.optim.clip_grad_norm = clip


def imported(recipe: str) -> ModuleType:
    """Import a recipe as its siblings do."""
    if str(RECIPES) not in sys.path:
        sys.path.insert(0, str(RECIPES))
    return importlib.import_module(recipe)


def reports_of(run: Callable[[], object]) -> list[Settings]:
    """Return what a rank reports to its agent while something runs: a file stands for the pipe."""
    before = os.environ.get(REPORT)
    with tempfile.TemporaryFile() as file:
        os.environ[REPORT] = f"{file.fileno()}:{os.fstat(file.fileno()).st_ino}"
        try:
            run()
        finally:
            del os.environ[REPORT]
            if before is not None:
                os.environ[REPORT] = before
        file.seek(0)
        return [json.loads(line) for line in file]


def scaled(clip: Callable[..., torch.Tensor], scale: float) -> Callable[..., torch.Tensor]:
    """Return a recipe's clipping behind a fault: gradients that are off by a factor."""

    def faulty(parameters: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        kept = list(parameters)
        for parameter in kept:
            if parameter.grad is not None and scale != 1.0:
                parameter.grad.mul_(scale)
        return clip(kept, *args, **kwargs)

    return faulty
