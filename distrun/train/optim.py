"""Around the optimizer: decay groups, the rate of a step, one norm over any mesh."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from distrun.train.config import TrainConfig


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return the parameter groups of AdamW: matrices decay, vectors (norms, biases) do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the rate of a step, counted from 0: warm-up, then the schedule.

    A function of the step alone, so there is no state to save. The curves are those of
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
    return config.lr * factor


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_grad_norm(
    parameters: Iterable[nn.Parameter],
    max_norm: float,
    stages: dist.ProcessGroup | None = None,
) -> Tensor:
    """Scale all gradients so that their norm is at most `max_norm`; return it as it was.

    `torch.nn.utils.clip_grad_norm_` refuses gradients of several meshes (FSDP x TP, experts).
    The squares of the norm of each mesh add up to that of the whole; so do those of stages.

    Args:
        parameters: All that this rank has, on any number of meshes, or on none.
        max_norm: 0 leaves the gradients as they are.
        stages: The group over which pipeline stages hold different parameters.

    Returns:
        The norm over all ranks, a plain scalar tensor, equal on each.
    """
    by_mesh: dict[object, list[Tensor]] = {}
    for parameter in parameters:
        if (grad := parameter.grad) is not None:
            mesh = grad.device_mesh if isinstance(grad, DTensor) else None
            by_mesh.setdefault(mesh, []).append(grad)
    square: Tensor | None = None
    for grads in by_mesh.values():
        norm = get_total_norm(grads)
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        square = whole**2 if square is None else square + whole**2
    if square is None:
        square = torch.zeros(())
    if stages is not None:
        dist.all_reduce(square, group=stages)
    total = square.sqrt()
    if max_norm > 0:
        for grads in by_mesh.values():
            _scale(grads, max_norm, total)
    return total


def _scale(grads: list[Tensor], max_norm: float, total: Tensor) -> None:
    """Scale gradients of one mesh by max_norm / total where that is below 1."""
    factor = torch.clamp(max_norm / (total + 1e-6), max=1.0)
    local = [g.to_local() if isinstance(g, DTensor) else g for g in grads]
    torch._foreach_mul_(local, factor.to(local[0].device))


def optimizer_step(optimizer: Optimizer, scaler: torch.amp.GradScaler, norm: Tensor) -> bool:
    """Step, unless a gradient anywhere is not finite; say whether it did.

    GradScaler looks at the gradients of its own rank. Under pipeline or expert parallelism one
    rank may see an overflow and another not, and the weights would part: so the norm decides,
    which is the same on all ranks.

    Args:
        optimizer: Its gradients are unscaled.
        scaler: Of float16; disabled otherwise.
        norm: What `clip_grad_norm` returned.
    """
    if not scaler.is_enabled():
        optimizer.step()
        return True
    finite = bool(torch.isfinite(norm))
    if finite:
        scaler.step(optimizer)
        scaler.update()
    else:
        scaler.update(scaler.get_scale() * scaler.get_backoff_factor())
    return finite
