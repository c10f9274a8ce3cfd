"""Scripts for GPUs on a machine without: CUDA devices are the CPU, numbers that are read are 1."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode

from distrun.estimate.tracer.norms import fused_rms_norm
from distrun.estimate.tracer.recorder import FSDP, local
from distrun.torch_fakes import address_of, outside_of_modes

FLOAT32_IN_AUTOCAST = {
    *("cross_entropy", "nll_loss", "softmax", "log_softmax", "layer_norm", "group_norm", "norm"),
    *("mse_loss", "l1_loss", "smooth_l1_loss", "kl_div", "binary_cross_entropy_with_logits"),
    *("exp", "log", "pow", "rsqrt", "reciprocal", "softplus", "logsumexp", "sum", "prod", "cumsum"),
}
"""Functions that autocast runs in float32 on a GPU, of those that it does not on a CPU
(https://docs.pytorch.org/docs/stable/amp.html#cuda-ops-that-can-autocast-to-float32)."""


_DROPOUT_AT = {"scaled_dot_product_attention": 4, "multi_head_attention_forward": 10}
"""Attention -> the argument that is its dropout: a GPU's kernels keep no mask of that."""
_IS_CUDA: Any = Tensor.is_cuda.__get__  # type: ignore[attr-defined]


class Inputs:
    """What the script copies to its device in a step: the batch."""

    nbytes = 0
    are_counted = False
    """In the step that counts, and not in what a script does at its end."""

    @classmethod
    def note(cls, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Count a tensor that is moved; numbers, such as a norm, have been there before."""
        tensor = args[0]
        asked = name == "cuda" or any(map(_is_device, (*args[1:], *kwargs.values())))
        if not asked or not tensor.ndim or tensor.requires_grad or isinstance(tensor, DTensor):
            return
        if FSDP not in sys._getframe(2).f_code.co_filename:  # which moves its own shards
            cls.nbytes += tensor.nbytes


def _is_device(value: Any) -> bool:
    return isinstance(value, (str, torch.device)) or type(value) is int


class OnGpu(TorchFunctionMode):
    """Runs on the CPU what the script asks a GPU to do, with the dtypes of a GPU."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("to", "cuda") and Inputs.are_counted:
            Inputs.note(name, args, kwargs or {})
        if (answer := _ANSWERS.get(name)) is not None or func == _IS_CUDA:
            return True if answer is None else answer(*args)
        if name == "numpy" and type(args[0]) not in (Tensor, nn.Parameter):
            return ones(args[0])
        if name == "__format__" and args[0].ndim == 0:
            return format(ones(args[0]).item(), args[1])
        if name in ("any", "all") and type(args[0]) is Tensor:  # of `isnan`, or of `isinf`
            with outside_of_modes():
                return func(*args, **(kwargs or {}))
        where, named = _without_numbers(name, args, kwargs or {})
        if name in _DROPOUT_AT:
            at = _DROPOUT_AT[name]
            where[at : at + 1] = [0.0] * len(where[at : at + 1])
            named |= dict.fromkeys(named.keys() & {"dropout_p"}, 0.0)
        if name == "rms_norm" and (normed := fused_rms_norm(where, named)) is not None:
            return normed
        if name in FLOAT32_IN_AUTOCAST and torch.is_autocast_enabled("cpu"):
            where = [_in_float32(value) for value in where]
        return func(*where, **named)


def _without_numbers(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a call with `cpu` for any device, a GPU's number too."""
    where = [_on_cpu(value) for value in args]
    named = {key: _on_cpu(value) for key, value in kwargs.items()}
    if type(named.get("device")) is int:
        named["device"] = "cpu"
    if name == "to" and where[1:] and type(where[1]) is int:
        where[1] = "cpu"
    return where, named


def _finite(tensor: Tensor, *args: object) -> Tensor:
    """Return what `isnan` and `isinf` find."""
    with outside_of_modes():
        return torch.zeros((), dtype=torch.bool).expand(tensor.shape)


def _on_cpu(value: Any) -> Any:
    """Return `cpu` for any GPU, and for a CPU with a number, which would be another device."""
    if isinstance(value, torch.device) and value.type in ("cuda", "cpu"):
        return torch.device("cpu")
    if isinstance(value, str) and value.partition(":")[0] in ("cuda", "cpu"):
        return "cpu"
    return value


def _in_float32(value: Any) -> Any:
    halves = (torch.bfloat16, torch.float16)
    return value.float() if isinstance(value, Tensor) and value.dtype in halves else value


def ones(tensor: Tensor) -> Any:
    """Return an array of this shape that takes no memory."""
    kind: Any = np.float64 if tensor.is_floating_point() else np.int64
    return np.broadcast_to(
        np.ones((), np.bool_ if tensor.dtype == torch.bool else kind), tensor.shape
    )


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """Return a deep copy, the same one for each time that the tensor is met.

    The tensor's own sets a storage, which fake ones have not.
    """
    if id(tensor) not in memo:
        with torch.no_grad():
            new = tensor.detach().clone()
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if is_parameter else new
    found: Tensor = memo[id(tensor)]
    return found


_ANSWERS: dict[str, Callable[..., Any]] = {
    "data_ptr": lambda tensor: address_of(local(tensor)),
    "cuda": lambda tensor, *args: tensor,
    "pin_memory": lambda tensor, *args: tensor,
    "__deepcopy__": _copied,
    "isnan": _finite,
    "isinf": _finite,
}
"""Functions and methods that are not run, and what answers in their place."""


def cpu_for_gpu() -> None:
    """Make what moves a module or casts take the CPU for a GPU."""
    cast, move = torch.autocast.__init__, nn.Module.to

    @functools.wraps(move)
    def moved(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        where: list[Any] = ["cpu" if type(value) is int else _on_cpu(value) for value in args]
        kwargs = {key: "cpu" if key == "device" else value for key, value in kwargs.items()}
        return move(module, *where, **kwargs)

    @functools.wraps(cast)
    def on_cpu(context: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        cast(context, str(_on_cpu(device_type)), *args, **kwargs)

    setattr(nn.Module, "to", moved)  # noqa: B010 - else mypy forbids it
    setattr(torch.autocast, "__init__", on_cpu)  # noqa: B010 - likewise
