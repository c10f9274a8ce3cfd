"""Traces a script by its five functions; docs/estimate-scripts.md is the contract."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor
from torch.distributed import device_mesh

from distrun.estimate.exchange import Order, Trace
from distrun.estimate.tracer.fakes import RefusedError
from distrun.estimate.tracer.measure import traced

FEW, MORE = 2, 3
LAYERS = "layers"
"""Parameter of `build_model` that says how many layers; its default is the whole model."""


class Words(list[str]):
    """A command line that notes whether somebody has read it."""

    is_read = False

    def __getitem__(self, key: Any) -> Any:
        """See list."""
        self.is_read = True
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:
        """See list."""
        self.is_read = True
        return super().__iter__()


def require_read(words: Words, script: Path) -> None:
    """Refuse arguments that a script has not looked at: a trace would be of something else.

    Raises:
        RefusedError: There are some.
    """
    if len(words) > 1 and not words.is_read:
        given = " ".join(list.__getitem__(words, slice(1, None)))
        raise RefusedError(f"{script.name} does not read its arguments: {given}")


def traces(module: ModuleType, order: Order) -> tuple[list[Trace], int]:
    """Return the traces of a script's parts, and the layers of its model, 0 if not known."""
    parameter = inspect.signature(module.build_model).parameters.get(LAYERS)
    whole = parameter.default if parameter is not None else 0
    if not isinstance(whole, int) or whole <= MORE or order.exact:
        return [traced(lambda: _two_steps(module, order, {}))], 0
    found = [
        traced(lambda layers=layers: _two_steps(module, order, {LAYERS: layers}), layers)  # type: ignore[misc]
        for layers in (FEW, MORE)
    ]
    return found, whole


def _two_steps(module: ModuleType, order: Order, depth: dict[str, int]) -> None:
    sizes = module.axes(order.world_size) if hasattr(module, "axes") else {"data": order.world_size}
    mesh = device_mesh.init_device_mesh("cuda", tuple(sizes.values()), mesh_dim_names=tuple(sizes))
    model: Any = module.build_model(**depth)
    model = module.parallelize(model, mesh)
    optimizer = module.build_optimizer(model)
    for step in range(3):
        batch = module.batch(step)
        parts = (batch,) if isinstance(batch, Tensor) else tuple(batch)
        module.loss(model, *parts).backward()
        optimizer.step()
        optimizer.zero_grad()
