"""Helpers of the optimizer: the learning rate of a step, the gradient norm over any mesh."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from distrun.torch_private import multiply_all
from distrun.train.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the learning rate of a step, counted from 0: warm-up, then the schedule.

    It depends only on the step, so there is no state to save. The curves are those of
    torch.optim.lr_scheduler's CosineAnnealingLR, LinearLR, PolynomialLR (of power 2),
    ExponentialLR and ConstantLR, from the end of the warm-up down to `min_lr`.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    whole = max(1, config.steps - config.warmup_steps)
    x = min(1.0, (step - config.warmup_steps) / whole)  # from 0 to 1
    low = config.min_lr
    factor = {
        "cosine": low + (1 - low) * (1 + math.cos(math.pi * x)) / 2,
        "linear": low + (1 - low) * (1 - x),
        "polynomial": low + (1 - low) * (1 - x) ** 2,
        "exponential": max(low, 1e-8) ** x,
        "constant": 1.0,
    }[config.schedule]
    return config.lr * float(factor)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_grad_norm(
    parameters: Iterable[nn.Parameter], max_norm: float, *, stages: int = 1
) -> Tensor:
    """Scale all gradients so that their norm is at most `max_norm`; return the norm before.

    `torch.nn.utils.clip_grad_norm_` refuses gradients of several meshes (FSDP x TP, experts),
    and does not support pipelines. Here every rank squares its gradients and divides by the
    number of ranks that hold the same; one all_reduce of a scalar gives the whole norm.

    Args:
        parameters: All parameters of this rank, on any number of meshes, or on none.
        max_norm: 0 leaves the gradients as they are.
        stages: Pipeline stages, each with parameters of its own.

    Returns:
        The norm over all ranks, a plain scalar, equal on all.
    """
    by_shards: dict[int, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            shards, grad = _local_grad(parameter)
            by_shards.setdefault(shards, []).append(grad)
    world_size = dist.get_world_size()
    squares = [
        get_total_norm(grads) ** 2 * (shards * stages / world_size)
        for shards, grads in by_shards.items()
    ]
    if set(by_shards) == {1} and stages == 1:  # every rank has all of them
        total = (squares[0] * world_size).sqrt()
    else:
        square = torch.stack(squares).sum()
        dist.all_reduce(square)
        total = square.sqrt()
    if max_norm > 0:
        factor = torch.clamp(max_norm / (total + 1e-6), max=1.0)
        for grads in by_shards.values():
            multiply_all(grads, factor.to(grads[0].device))
    return total


def _local_grad(parameter: nn.Parameter) -> tuple[int, Tensor]:
    """Return the number of different shards of a gradient, and this rank's shard."""
    grad = parameter.grad
    if not isinstance(grad, DTensor) or not isinstance(parameter, DTensor):
        assert grad is not None
        return 1, grad
    if grad.placements != parameter.placements:  # a sum that DTensor has deferred (norms under TP)
        parameter.grad = grad = grad.redistribute(placements=parameter.placements)
    sizes = zip(grad.device_mesh.shape, grad.placements, strict=True)
    # is_shard() is false for the strided shards of FSDP over TP
    return math.prod(n for n, place in sizes if not place.is_replicate()), grad.to_local()
