"""Traces a recipe: its own `main`, with two small numbers of layers, or with all.

A recipe trains on any text, so a trace needs none; it saves nothing and resumes nothing.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from distrun import comm
from distrun.estimate.exchange import Order, Trace
from distrun.estimate.tracer import fakes
from distrun.estimate.tracer.measure import shares_optimizer, traced
from distrun.estimate.tracer.routing import NOTE, route_evenly
from distrun.train import checkpoint, progress, setup
from distrun.train.config import parse

FEW, MORE = 2, 3
"""Layers of the two traces, in each stage of a pipeline."""
QUIET = ["--no-save", "--profile", "", "--tensorboard", ""]


def prepare() -> None:
    """Put stand-ins for what a recipe imports, before it does."""
    fakes.put(comm, init=comm.attach)
    fakes.put(setup.Place, mesh=fakes.for_real(_mesh))
    fakes.put(setup, shorten_timeout=fakes.nothing)
    fakes.put(checkpoint.Checkpoints, resume=lambda self: 0)
    fakes.put(progress.Progress, agree=_agree)


def _mesh(place: setup.Place, axes: dict[str, int]) -> DeviceMesh:
    """Return what `Place.mesh` does, with this rank's groups alone: others are thousands."""
    grid = torch.arange(place.world_size).view(tuple(axes.values()))
    here = [int(i) for i in (grid == place.rank).nonzero()[0]]
    lines = [
        grid[tuple(slice(None) if i == axis else at for i, at in enumerate(here))].tolist()
        for axis in range(len(here))
    ]
    groups = [dist.new_group(ranks) for ranks in lines]
    return DeviceMesh.from_group(
        groups if len(groups) > 1 else groups[0], "cpu", mesh=grid, mesh_dim_names=tuple(axes)
    )


def _agree(
    self: progress.Progress, step: int, loss: Tensor, seen: float, *args: Any, **kwargs: Any
) -> float:
    """Send what `Progress.agree` sends; the loss is 1."""
    dist.all_reduce(torch.zeros(4, dtype=torch.float64))
    return 1.0


def traces(module: ModuleType, order: Order) -> tuple[list[Trace], int]:
    """Return the traces of a recipe, and the layers of the model that its flags name.

    Raises:
        ConfigError: A flag is wrong, or does not fit the number of ranks.
    """
    config: Any = parse(module.Config, module.axes, words=order.args)
    sys.argv += QUIET
    if not hasattr(config, "size"):
        return [traced(module.main)], 0
    _without_text()
    notes: tuple[str, ...] = ()
    if hasattr(module, "Experts"):
        route_evenly(module.Experts)
        notes = (NOTE,)
    models = sys.modules["model"]
    shape = models.model_config(config.size)
    unit = getattr(config, "stages", getattr(config, "pp", 1))
    count = _Counted(module)
    named = models.SIZES[config.size]

    def of_depth(layers: int) -> Trace:
        models.SIZES[config.size] = dataclasses.replace(named, layers=layers)
        try:
            trace = traced(module.main, layers)
        finally:
            models.SIZES[config.size] = named
        told = (*trace.work.notes, *notes)
        work = dataclasses.replace(trace.work, parameters=count.parameters, notes=told)
        return dataclasses.replace(trace, work=work)

    depths = [unit * FEW, unit * MORE]
    if order.exact or shape.layers <= depths[1]:
        return [of_depth(shape.layers)], shape.layers
    few = of_depth(depths[0])
    if shares_optimizer(few):
        return [of_depth(shape.layers)], shape.layers
    return [few, of_depth(depths[1])], shape.layers


class _Counted:
    """Counts the parameters of what `build_model` returns: a pipeline stage has a part of them."""

    def __init__(self, module: ModuleType) -> None:
        self.parameters = 0
        self._build: Callable[..., nn.Module] = module.build_model
        module.build_model = self._counting  # type: ignore[attr-defined]

    def _counting(self, config: Any) -> nn.Module:
        model = self._build(config)
        self.parameters = sum(p.numel() for p in model.parameters())
        return model


def _without_text() -> None:
    """Make every window of text zeros, and need no text."""
    data: Any = sys.modules["data"]

    class Zeros(data.Windows):  # type: ignore[misc]
        def __init__(self, config: Any, shard: Any) -> None:
            self.config, self._parts = config, shard.count

        def __getitem__(self, step: int) -> Tensor:
            rows = self.config.batch_size // self.config.accumulate // self._parts
            shape = (self.config.accumulate, rows, self.config.seq_len + 1)
            return torch.zeros(shape, dtype=torch.int64)

    for place in (data, sys.modules["__traced__"]):
        fakes.put(
            place,
            open_text=lambda config, shard: (Zeros(config, shard), Zeros(config, shard)),
            require_text=fakes.nothing,
        )
