"""Mixed precision: arithmetic in fewer bits, weights in float32."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from distrun.torch_private import GradScalerBase, unscale_all

_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def master_dtype(precision: str) -> torch.dtype:
    """Return the dtype of the weights that the optimizer updates."""
    return torch.float64 if precision == "float64" else torch.float32


def compute_dtype(precision: str) -> torch.dtype:
    """Return the dtype of matrix products."""
    return _HALF.get(precision) or master_dtype(precision)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of one forward pass; `torch.autocast` caches casts until its exit."""
    if precision not in _HALF:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_HALF[precision])


class GradScaler(GradScalerBase):
    """Scales the loss so that float16 gradients do not underflow; off in other precisions.

    torch's own checks the gradients of its own rank, and refuses a mixture of tensors and
    DTensors. If ranks hold different gradients (pipeline, experts), one may see an overflow
    and another not, and their weights would differ. Here all ranks use the result of all.
    """

    def __init__(self, precision: str, device: torch.device) -> None:
        super().__init__(device.type, enabled=precision == "float16")
        if self.is_enabled():  # a rank without a loss of its own never calls scale()
            self.begin(device)

    def unscale_grads(
        self, optimizer: Optimizer, inverse_scale: Tensor, found_inf: Tensor
    ) -> dict[torch.device, Tensor]:
        """Unscale; an overflow on one rank counts on all."""
        for group in optimizer.param_groups:
            grads = [p.grad for p in group["params"] if p.grad is not None]
            local = [g.to_local() if isinstance(g, DTensor) else g for g in grads]
            if local:
                found_here, inverse = (t.to(local[0].device) for t in (found_inf, inverse_scale))
                unscale_all(local, found_here, inverse)
                found_inf = torch.maximum(found_inf, found_here.to(found_inf.device))
        dist.all_reduce(found_inf, dist.ReduceOp.MAX)
        return {found_inf.device: found_inf}
