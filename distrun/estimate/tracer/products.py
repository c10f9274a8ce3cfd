"""Shapes of matrix products and of attention, from the operations that compute them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Product(NamedTuple):
    """`times` products [m, k] x [k, n]."""

    times: int
    m: int
    n: int
    k: int
    dtype: str


class Attended(NamedTuple):
    """One call of attention; the names are those of `work.Attention`."""

    batch: int
    heads: int
    queries: int
    keys: int
    head_dim: int
    causal: bool


def matmul_of(name: str, args: Sequence[Any], result: object) -> Product | None:
    """Return times, m, n, k and dtype of a matrix product; a convolution is one too."""
    if name in ("aten::mm", "aten::bmm"):
        a, b = args[:2]
    elif name in ("aten::addmm", "aten::baddbmm"):
        a, b = args[1:3]
    elif name == "aten::convolution":
        return _convolution(args[0], args[1], result)
    elif name == "aten::convolution_backward":
        return _backward_of_convolution(args)
    else:
        return None
    times = a.shape[0] if a.ndim == 3 else 1
    lower = torch.get_float32_matmul_precision() != "highest"
    return Product(times, a.shape[-2], b.shape[-1], a.shape[-1], _dtype(a, lower=lower))


def _convolution(x: Tensor, weight: Tensor, result: object) -> Product:
    """Return a convolution as the product of its patches with its weight."""
    assert isinstance(result, Tensor)
    channels = weight.shape[0]
    dtype = _dtype(x, lower=torch.backends.cudnn.allow_tf32)
    return Product(1, result.numel() // channels, channels, prod(weight.shape[1:]), dtype)


def _backward_of_convolution(args: Sequence[Any]) -> Product:
    grad, x, weight = args[:3]
    channels = weight.shape[0]
    wanted = sum(bool(wants) for wants in args[10][:2])  # of the input, and of the weight
    shape = (grad.numel() // channels, channels, prod(weight.shape[1:]))
    return Product(wanted, *shape, _dtype(x, lower=torch.backends.cudnn.allow_tf32))


def attention_of(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Attended | None:
    """Return the shape of a call of attention."""
    if name == "aten::_scaled_dot_product_flash_attention_for_cpu":
        q, k = args[:2]
        causal = kwargs.get("is_causal", args[4] if len(args) > 4 else False)
    elif name == "aten::_scaled_dot_product_flash_attention_for_cpu_backward":
        q, k = args[1:3]
        causal = args[7]
    else:
        return None
    batch, heads, queries, head_dim = q.shape
    return Attended(batch, heads, queries, k.shape[-2], head_dim, bool(causal))


def _dtype(tensor: Tensor, *, lower: bool) -> str:
    """Return the dtype of a product; `lower`: float32 is computed as tf32, which GPUs do faster.

    Convolutions do so by default
    (https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices).
    """
    name = str(tensor.dtype).removeprefix("torch.")
    return "tf32" if lower and name == "float32" else name
