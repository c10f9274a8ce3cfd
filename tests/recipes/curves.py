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
from tests.recipes.launching import RECIPES, giving_way
from tests.recipes.reference import Curve

Settings = dict[str, Any]
Log = dict[str, dict[int, float]]
"""Name of a number -> step -> its value."""


class Case(NamedTuple):
    """One training run on some ranks."""

    name: str
    recipe: str
    settings: Settings
    gradient_scale: float = 1.0
    """1, or a fault: every gradient of every rank is multiplied by it before the norm is taken."""


def curves(cases: Sequence[Case], ranks: int, timeout_s: float = 110) -> dict[str, Curve]:
    """Train each case on so many ranks, one behind the other; return what rank 0 reported."""
    found = logged(cases, ranks, timeout_s)
    names = ("loss", "grad_norm")
    return {
        case: Curve(*(list(values[name].values()) for name in names))
        for case, values in found.items()
    }


def logged(cases: Sequence[Case], ranks: int, timeout_s: float = 110) -> dict[str, Log]:
    """Train each case on so many ranks, one behind the other; return what rank 0 reported."""

    def train_all(world: World) -> dict[str, Log]:
        with giving_way():
            return {case.name: train(case, world) for case in cases}

    return run_ranks(train_all, ranks, "gloo", timeout_s)[0]


def train(case: Case, world: World) -> Log:
    """Train one case on this rank; return what it reported, which rank 0 alone does."""
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


def reports_of(run: Callable[[], object]) -> Log:
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
        found: Log = {}
        for report in map(json.loads, file):
            for name, value in report.get("values", {}).items():  # milestones have none
                found.setdefault(name, {})[report["step"]] = value
        return found


def scaled(clip: Callable[..., torch.Tensor], scale: float) -> Callable[..., torch.Tensor]:
    """Return a recipe's clipping behind a fault: gradients that are off by a factor."""

    def faulty(parameters: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        kept = list(parameters)
        for parameter in kept:
            if parameter.grad is not None and scale != 1.0:
                parameter.grad.mul_(scale)
        return clip(kept, *args, **kwargs)

    return faulty
