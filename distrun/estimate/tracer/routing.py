"""The experts of recipes/moe.py in a trace: each gets equally many tokens, for want of numbers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from distrun.estimate.tracer.devices import ones

NOTE = "each expert gets equally many tokens: real routing depends on numbers"


class EvenRouting(TorchFunctionMode):
    """Answers what a router counts: all places are taken, and shared out evenly."""

    total = 0
    """Places of the last mask that was looked through."""
    routes = False
    """Whether an expert layer runs."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name == "nonzero":
            mask: Tensor = args[0]
            EvenRouting.total = mask.numel()
            return mask.new_empty((mask.numel(), mask.ndim), dtype=torch.int64)
        if name == "bincount":
            return args[0].new_empty(kwargs["minlength"])
        if name == "repeat_interleave" and isinstance(args[1], Tensor):
            return args[0].new_empty(self.total)
        return func(*args, **kwargs)


def listed(tensor: Tensor) -> Any:
    """Return the numbers of a fake tensor: ones, or even parts where experts are asked."""
    if EvenRouting.routes:
        return [EvenRouting.total // len(tensor)] * len(tensor)
    return ones(tensor).tolist()


def route_evenly(experts: Any) -> None:
    """Make the forward pass of a class of experts route evenly."""
    forward = experts.forward

    @functools.wraps(forward)
    def even(*args: Any, **kwargs: Any) -> Any:
        EvenRouting.routes = True
        try:
            with EvenRouting():
                return forward(*args, **kwargs)
        finally:
            EvenRouting.routes = False

    experts.forward = even
