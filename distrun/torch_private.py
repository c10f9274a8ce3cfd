"""Every private name of torch that distrun and its recipes use; all others are public.

Underscored names, `torch._C`, and what torch does not document may change from one release
to the next. `tests/unit/torch_private/` says of each what is needed of it, so that a new
release is known to work, or shows here what to mend. What torch's imports do not load
by themselves is loaded when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import AllgatherOptions
from torch.optim import Optimizer
from torch.utils._pytree import (
    SUPPORTED_NODES,
    PyTree,
    TreeSpec,
    keystr,
    tree_flatten,
    tree_flatten_with_path,
    tree_unflatten,
)

if TYPE_CHECKING:
    from torch.distributed import _functional_collectives as functional_collectives
    from torch.distributed.checkpoint.filesystem import _StorageInfo as StorageInfo
    from torch.distributed.device_mesh import DeviceMesh

__all__ = [
    "SCALER_GROWTH",
    "SUPPORTED_NODES",
    "AllgatherOptions",
    "GradScalerBase",
    "PyTree",
    "StorageInfo",
    "TreeSpec",
    "all_gather_single",
    "default_store",
    "device_types",
    "forget_groups",
    "functional_collectives",
    "groups",
    "keep_out_of_graphs",
    "keystr",
    "leave_out_of_ddp",
    "multiply_all",
    "naming_by",
    "reduce_scatter_single",
    "set_timeout",
    "tree_flatten",
    "tree_flatten_with_path",
    "tree_unflatten",
    "unscale_all",
]


def __getattr__(name: str) -> Any:
    if name == "functional_collectives":
        return import_module("torch.distributed._functional_collectives")
    if name == "StorageInfo":
        return import_module("torch.distributed.checkpoint.filesystem")._StorageInfo
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# --- process groups ------------------------------------------------------------------

_GROUP: Any = dist.ProcessGroup
# torch 2.12 gave these two public names, and warns of the old ones.
all_gather_single = getattr(_GROUP, "all_gather_single", None) or _GROUP._allgather_base
reduce_scatter_single = (
    getattr(_GROUP, "reduce_scatter_single", None) or _GROUP._reduce_scatter_base
)


def groups() -> Iterator[dist.ProcessGroup]:
    """Yield every process group that this rank is in."""
    yield from dist.distributed_c10d._world.pg_names


_C10D: Any = dist.distributed_c10d


@contextmanager
def naming_by(serial: int) -> Iterator[None]:
    """Have the next group that only its members make named by them and a serial number.

    The name is where they meet. torch makes it of the number of groups that a rank is in
    (2.13; the same name comes again once one was destroyed, and a rank then finds the last
    group's addresses) or has made (2.14, where ranks with other histories wait for ever at
    names of their own, in the next group of the whole world too: its name is that number).
    """
    hashed, made = _C10D._hash_ranks_to_str, _C10D._world.group_count
    _C10D._hash_ranks_to_str = lambda ranks: f"distrun/part{serial}/{'_'.join(map(str, ranks))}"
    try:
        yield
    finally:
        _C10D._hash_ranks_to_str, _C10D._world.group_count = hashed, made


def default_store() -> dist.distributed_c10d.Store:
    """Return where the ranks of the default group have met."""
    return dist.distributed_c10d._get_default_store()


def device_types(group: dist.ProcessGroup) -> Sequence[torch.device]:
    """Return the kinds of devices that a group has a backend for."""
    return group._device_types


def set_timeout(group: dist.ProcessGroup, timeout_s: float) -> None:
    """Give the group's later collectives another timeout."""
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=timeout_s), group)


def forget_groups(mesh: DeviceMesh) -> None:
    """Take the process groups from a mesh that somebody may keep; torch 2.12 made it keep them."""
    getattr(mesh, "_pg_registry", {}).clear()


def keep_out_of_graphs(*functions: Callable[..., Any]) -> None:
    """Have torch.compile neither trace these functions nor what they call.

    As `torch.compiler.disable` does, but without importing the compiler, which takes a second,
    and without a wrapper, which every call would pay for.
    """
    try:
        from torch._C._dynamo import eval_frame
    except ImportError:
        return  # a torch without it
    for function in functions:
        function._torchdynamo_disable = True  # type: ignore[attr-defined] # inside of a graph
        function._torchdynamo_disable_msg = "a collective of distrun.comm"  # type: ignore[attr-defined]
        skip = eval_frame._FrameAction.SKIP
        strategy = eval_frame._FrameExecStrategy(skip, skip)
        eval_frame.set_code_exec_strategy(function.__code__, strategy)


# --- training ------------------------------------------------------------------------


def leave_out_of_ddp(model: nn.Module, names: Sequence[str]) -> None:
    """Have DistributedDataParallel neither copy nor reduce these parameters and buffers."""
    ddp: Any = nn.parallel.DistributedDataParallel
    ddp._set_params_and_buffers_to_ignore_for_model(model, names)


def multiply_all(tensors: list[Tensor], factor: Tensor) -> None:
    """Multiply tensors of one device in place, in few kernels."""
    torch._foreach_mul_(tensors, factor)


def unscale_all(grads: list[Tensor], found_inf: Tensor, inverse_scale: Tensor) -> None:
    """Multiply gradients of one device in place; set `found_inf` to 1 if one is not finite."""
    torch._amp_foreach_non_finite_check_and_unscale_(grads, found_inf, inverse_scale)


SCALER_GROWTH = "_growth_tracker"
"""Where a GradScaler's state says for how many steps its scale has held."""


class GradScalerBase(torch.amp.GradScaler):
    """A GradScaler whose reading of the gradients is a subclass's."""

    def begin(self, device: torch.device) -> None:
        """Make the scale, as the first `scale()` does."""
        self._lazy_init_scale_growth_tracker(device)

    def unscale_grads(
        self, optimizer: Optimizer, inverse_scale: Tensor, found_inf: Tensor
    ) -> dict[torch.device, Tensor]:
        """Unscale in place; return for each device 1 where a gradient is not finite, else 0."""
        raise NotImplementedError

    def _unscale_grads_(
        self, optimizer: Optimizer, inv_scale: Tensor, found_inf: Tensor, allow_fp16: bool
    ) -> dict[torch.device, Tensor]:
        return self.unscale_grads(optimizer, inv_scale, found_inf)
