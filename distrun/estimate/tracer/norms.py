"""RMSNorm as a GPU computes it: one kernel, which keeps its input and one number a row.

On a CPU torch puts it together from operations that keep float32 copies of the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate


class _Fused(torch.autograd.Function):
    """Allocates what `aten::_fused_rms_norm` and its backward allocate."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor) -> Tensor:
        per_row = torch.empty((*x.shape[:-1], 1), dtype=torch.float32)
        context.save_for_backward(x, weight, per_row)
        return torch.empty_like(x)

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, _ = context.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)


def fused_rms_norm(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the result of a call of `rms_norm`; None if a GPU has no kernel for it."""
    x = args[0]
    weight = args[2] if len(args) > 2 else kwargs.get("weight")
    if weight is None or weight.dtype != x.dtype:
        return None
    if isinstance(x, DTensor) != isinstance(weight, DTensor):
        return None
    if not isinstance(x, DTensor):
        return _apply(x, weight)
    if any(place.is_shard(x.ndim - 1) or place.is_partial() for place in x.placements):
        return None
    if not all(place.is_replicate() for place in weight.placements):
        return None
    # Each rank sees some rows: the gradient of the weight is a sum over ranks.
    sums = [Partial() if place.is_shard() else Replicate() for place in x.placements]
    local = _apply(x.to_local(), weight.to_local(grad_placements=sums))
    return DTensor.from_local(local, x.device_mesh, x.placements, run_check=False)


def _apply(x: Tensor, weight: Tensor) -> Tensor:
    result: Tensor = _Fused.apply(x, weight)  # type: ignore[no-untyped-call]
    return result
