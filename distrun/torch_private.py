"""Every private name of torch that distrun and its recipes use; all other uses are public API.

Underscored names, `torch._C`, and what torch does not document may change from one release
to the next. `tests/unit/torch_private/` tests what is needed of each, so that a new release either
passes or shows what to fix here. Modules that `import torch` does not load are loaded on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib import import_module
from itertools import islice
from operator import attrgetter, methodcaller
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
    "flight_record",
    "forget_groups",
    "functional_collectives",
    "group_names",
    "group_timeouts",
    "groups",
    "keep_out_of_graphs",
    "keystr",
    "known_groups",
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
# torch 2.12 made these two public, and warns when the old names are used.
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
    """Name the next group that only its members make by its ranks and a serial number.

    The ranks find one another in the store by this name. torch 2.13 makes it from the number of
    groups that a rank is in: after one is destroyed the name is used again, and a rank reads the
    old group's addresses. torch 2.14 makes it from the number of groups that a rank has made: ranks
    that made different numbers of groups wait for ever under different names, also in the next
    group of the whole world.
    """
    hashed, made = _C10D._hash_ranks_to_str, _C10D._world.group_count
    _C10D._hash_ranks_to_str = lambda ranks: f"distrun/part{serial}/{'_'.join(map(str, ranks))}"
    try:
        yield
    finally:
        _C10D._hash_ranks_to_str, _C10D._world.group_count = hashed, made


def default_store() -> dist.distributed_c10d.Store:
    """Return the store of the default group."""
    return dist.distributed_c10d._get_default_store()


def device_types(group: dist.ProcessGroup) -> Sequence[torch.device]:
    """Return the device types that a group has a backend for."""
    return group._device_types


def set_timeout(group: dist.ProcessGroup, timeout_s: float) -> None:
    """Set the timeout of the group's later collectives; from torch 2.14 on by a public name."""
    change = getattr(dist, "set_timeout", dist.distributed_c10d._set_pg_timeout)
    change(timedelta(seconds=timeout_s), group)


def forget_groups(mesh: DeviceMesh) -> None:
    """Remove the process groups from a mesh: from torch 2.12 on it keeps them alive."""
    getattr(mesh, "_pg_registry", {}).clear()


def keep_out_of_graphs(*functions: Callable[..., Any]) -> None:
    """Make torch.compile skip these functions and what they call.

    Like `torch.compiler.disable`, but without importing the compiler, which takes a second, and
    without a wrapper, which costs time in every call.
    """
    try:
        from torch._C._dynamo import eval_frame
    except ImportError:
        return  # a torch without it
    for function in functions:
        function._torchdynamo_disable = True  # type: ignore[attr-defined] # inside a graph
        function._torchdynamo_disable_msg = "a collective of distrun.comm"  # type: ignore[attr-defined]
        skip = eval_frame._FrameAction.SKIP
        strategy = eval_frame._FrameExecStrategy(skip, skip)
        eval_frame.set_code_exec_strategy(function.__code__, strategy)


# --- records of collectives -----------------------------------------------------------


def flight_record() -> bytes:
    """Return what torch's flight recorder holds, as JSON, without stacks.

    Raises:
        AttributeError: This torch cannot tell it.
    """
    bindings: Any = torch._C._distributed_c10d
    record: bytes = bindings._dump_fr_trace_json(True, False)
    return record


def known_groups() -> list[tuple[str, str, dict[int, int] | None]]:
    """Return name, description and group rank by global rank of each group of this rank.

    It is one call into C: a thread that held a group, and were interrupted, might be the last one
    to hold it, and would have to destroy it.
    """
    names, ranks = (
        dist.distributed_c10d._world.pg_names,
        dist.distributed_c10d._world.pg_group_ranks,
    )
    return list(zip(names.values(), map(_description, names), map(ranks.get, names), strict=True))


_description = attrgetter("group_desc")


def group_timeouts() -> dict[str, float]:
    """Return torch's own limit for a collective of each group of this rank, in s, by name.

    As in `known_groups`, no group is ever held here. A group whose backends tell no limit is
    left out.
    """
    names = dist.distributed_c10d._world.pg_names
    before: list[str] = list(names.values())
    found: dict[str, float] = {}
    for number, name in enumerate(before):
        for device in ("cpu", "cuda"):
            backend: Any = methodcaller("_get_backend", torch.device(device))
            with suppress(RuntimeError, AttributeError):
                (limit,) = map(_limit, map(backend, islice(names, number, number + 1)))
                found[name] = limit.total_seconds()
                break
    return found if list(names.values()) == before else {}


_limit: Any = attrgetter("options._timeout")


def group_names() -> Mapping[dist.ProcessGroup, str]:
    """Return torch's own mapping from the groups of this rank to their names."""
    return dist.distributed_c10d._world.pg_names


# --- training ------------------------------------------------------------------------


def leave_out_of_ddp(model: nn.Module, names: Sequence[str]) -> None:
    """Make DistributedDataParallel neither copy nor reduce these parameters and buffers."""
    ddp: Any = nn.parallel.DistributedDataParallel
    ddp._set_params_and_buffers_to_ignore_for_model(model, names)


def multiply_all(tensors: list[Tensor], factor: Tensor) -> None:
    """Multiply tensors of one device in place, with few kernels."""
    torch._foreach_mul_(tensors, factor)


def unscale_all(grads: list[Tensor], found_inf: Tensor, inverse_scale: Tensor) -> None:
    """Multiply gradients of one device in place; set `found_inf` to 1 if one is not finite."""
    torch._amp_foreach_non_finite_check_and_unscale_(grads, found_inf, inverse_scale)


SCALER_GROWTH = "_growth_tracker"
"""Key of a GradScaler's state: the number of steps since its scale last changed."""


class GradScalerBase(torch.amp.GradScaler):
    """A GradScaler whose subclass reads the gradients."""

    def begin(self, device: torch.device) -> None:
        """Create the scale tensor, as the first `scale()` does."""
        self._lazy_init_scale_growth_tracker(device)

    def unscale_grads(
        self, optimizer: Optimizer, inverse_scale: Tensor, found_inf: Tensor
    ) -> dict[torch.device, Tensor]:
        """Unscale in place; return per device 1 if a gradient is not finite, else 0."""
        raise NotImplementedError

    def _unscale_grads_(
        self, optimizer: Optimizer, inv_scale: Tensor, found_inf: Tensor, allow_fp16: bool
    ) -> dict[torch.device, Tensor]:
        return self.unscale_grads(optimizer, inv_scale, found_inf)
