"""Arithmetic in fewer bits, weights in float32."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def master_dtype(precision: str) -> torch.dtype:
    """Return the type of the weights that the optimizer updates."""
    return torch.float64 if precision == "float64" else torch.float32


def compute_dtype(precision: str) -> torch.dtype:
    """Return the type in which matrices are multiplied."""
    return _HALF.get(precision) or master_dtype(precision)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of one forward pass; `torch.autocast` keeps casts until it is left."""
    if precision not in _HALF:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_HALF[precision])


def grad_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Return what keeps float16's gradients above its smallest number; it idles otherwise."""
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")
