"""The tensors of a model and its optimizer, by names that are the same under any parallelism."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.optim import Optimizer

_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module")


def plain_name(name: str) -> str:
    """Return a parameter's name without the parts that DDP, compile and checkpointing add."""
    parts = name.removeprefix("module.").split(".")  # DDP's, around the whole model
    return ".".join(part for part in parts if part not in _WRAPPERS)


def training_state(parts: Sequence[nn.Module], optimizer: Optimizer) -> dict[str, Tensor]:
    """Return `model.NAME` and `optim.NAME.KEY`, the tensors themselves and no copies.

    Args:
        parts: The model, or this rank's pipeline stages, wrapped or not.
        optimizer: The optimizer; it may hold the state of some parameters only (ZeRO-1).
    """
    state: dict[str, Tensor] = {}
    names: dict[Tensor, str] = {}
    for part in parts:
        # First: FSDP may have kept gathered weights (after evaluation). This frees them, and
        # the parameters are again those of the optimizer.
        state |= {f"model.{plain_name(n)}": t for n, t in part.state_dict().items()}
        names |= {p: plain_name(name) for name, p in part.named_parameters()}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            state[f"optim.{names[parameter]}.{key}"] = value
    return state


def whole_shapes(
    state: Mapping[str, Tensor], group: dist.ProcessGroup
) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the whole model; under a pipeline each rank has only a part."""
    mine = {k[6:]: tuple(v.shape) for k, v in state.items() if k.startswith("model.")}
    everyone: list[Any] = [None] * group.size()
    dist.all_gather_object(everyone, mine, group=group)
    return {name: shape for part in everyone for name, shape in part.items()}


def stored_shapes(stored: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the model that a checkpoint's metadata lists."""
    return {
        name.removeprefix("model."): tuple(entry.size)
        for name, entry in stored.items()
        if name.startswith("model.") and isinstance(entry, TensorStorageMetadata)
    }


def materialise(optimizer: Optimizer) -> None:
    """Make the optimizer's tensors, to load into, by a step with zero gradients and lr 0."""
    if optimizer.state:
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
