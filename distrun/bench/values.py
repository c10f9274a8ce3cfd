"""Inputs whose results are exact in the dtype, like those of nccl-tests' `-c`.

They are integers so small that no partial sum is rounded: bfloat16 holds integers up to 256,
float16 up to 2048, int8 up to 127. So a reduction has one right result in any order. If there are
so many ranks that ones alone would exceed that, most ranks give 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_EXACT_TO = {torch.bfloat16: 256, torch.float16: 2048, torch.int8: 127, torch.uint8: 255}
_LETTERS = 101  # a prime, so that neighbouring ranks and elements differ
_STEP = 37
_MOST = 16
_TURN = 5  # so that the largest summand is not always the last rank's


def moved(count: int, rank: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a rank's input to an op that moves data: [count]; ranks have different values."""
    # from 1: a zero with a flipped sign would still be equal to zero
    return (1 + (_ramp(count, device) + _STEP * rank) % _LETTERS).to(dtype)


def summand(
    count: int, rank: int, world_size: int, dtype: torch.dtype, redop: str, device: torch.device
) -> Tensor:
    """Return a rank's input to a reduction: [count]."""
    if redop == "prod":  # one rank gives 2, all others 1; the rank changes with the element
        return torch.where(_ramp(count, device) % world_size == rank, 2, 1).to(dtype)
    return _term(_ramp(count, device), rank, world_size, dtype).to(dtype)


def reduced(
    count: int, world_size: int, dtype: torch.dtype, redop: str, device: torch.device
) -> Tensor:
    """Return the reduction of all ranks' summands: [count]."""
    ramp = _ramp(count, device)
    if redop == "prod":
        return torch.full((count,), 2, dtype=dtype, device=device)
    whole = torch.zeros_like(ramp)
    if redop == "min":
        whole += _MOST
    for rank in range(world_size):
        term = _term(ramp, rank, world_size, dtype)
        if redop in ("sum", "mean"):
            whole += term
        else:
            whole = torch.maximum(whole, term) if redop == "max" else torch.minimum(whole, term)
    return (whole.double() / world_size if redop == "mean" else whole).to(dtype)


def tolerance(dtype: torch.dtype, redop: str, world_size: int) -> float:
    """Return the allowed relative error: a mean may be rounded twice, or each of its parts once."""
    if redop != "mean" or not dtype.is_floating_point:
        return 0.0
    return max(2.0, math.sqrt(world_size)) * torch.finfo(dtype).eps


def _term(ramp: Tensor, rank: int, world_size: int, dtype: torch.dtype) -> Tensor:
    """Return the integers that a rank gives to a reduction."""
    most = _EXACT_TO.get(dtype, 1 << 20)
    if world_size >= most:  # one in so many ranks gives 1
        return ((ramp + rank) % (2 * world_size // most + 1) == 0).long()
    return (ramp + _TURN * rank) % max(2, min(_MOST, most // world_size))


def _ramp(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, dtype=torch.int64, device=device)
