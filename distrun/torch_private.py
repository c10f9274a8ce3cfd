"""Every private name of torch that distrun and its recipes use; all other uses are public API.

Underscored names, `torch._C`, and what torch does not document may change from one release
to the next. `tests/unit/torch_private/` tests what is needed of each, so that a new release either
passes or shows what to fix here. Modules that `import torch` does not load are loaded on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
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
from torch.utils._python_dispatch import TorchDispatchMode as DispatchMode
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
    "DispatchMode",
    "GradScalerBase",
    "PyTree",
    "StorageInfo",
    "TreeSpec",
    "active_fake_mode",
    "after_backward",
    "all_gather_single",
    "default_group_name",
    "default_store",
    "device_types",
    "fake_mode",
    "flight_record",
    "foreach_as_on_gpus",
    "forget_groups",
    "functional_collectives",
    "group_named",
    "group_names",
    "group_timeouts",
    "groups",
    "in_backward",
    "join_fake_group",
    "keep_out_of_graphs",
    "keystr",
    "known_groups",
    "leave_out_of_ddp",
    "left_out_of_ddp",
    "multiply_all",
    "naming_by",
    "outside_of_modes",
    "propagate_apart",
    "reduce_scatter_single",
    "set_timeout",
    "step_always",
    "stages_agree",
    "swap_nothing",
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


def default_group_name() -> str:
    """Return the name that operations use for the default group."""
    return dist.distributed_c10d._get_default_group().group_name


def default_store() -> dist.distributed_c10d.Store:
    """Return the store of the default group."""
    return dist.distributed_c10d._get_default_store()


def device_types(group: dist.ProcessGroup) -> Sequence[torch.device]:
    """Return the device types that a group has a backend for."""
    return group._device_types


def set_timeout(group: dist.ProcessGroup, timeout_s: float) -> None:
    """Set the timeout of the group's later collectives."""
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=timeout_s), group)


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


# --- tracing without devices and ranks -----------------------------------------------


def join_fake_group(rank: int, world_size: int) -> None:
    """Make a default group whose collectives return at once and send nothing."""
    fake_pg = import_module("torch.testing._internal.distributed.fake_pg")
    dist.init_process_group("fake", store=fake_pg.FakeStore(), rank=rank, world_size=world_size)


def group_named(name: str) -> dist.ProcessGroup:
    """Return the group that an operation names."""
    group: dist.ProcessGroup = _C10D._resolve_process_group(name)
    return group


def fake_mode() -> DispatchMode:
    """Return the mode in which tensors have a shape and no numbers."""
    mode: DispatchMode = import_module("torch._subclasses.fake_tensor").FakeTensorMode(
        allow_non_fake_inputs=True
    )
    return mode


def outside_of_modes() -> AbstractContextManager[object]:
    """Return the context in which no dispatch mode is active."""
    modes: Any = import_module("torch.utils._python_dispatch")
    context: AbstractContextManager[object] = modes._disable_current_modes()
    return context


def active_fake_mode() -> object:
    """Return the innermost fake mode, or None."""
    mode: object = torch._guards.active_fake_mode()
    return mode


def propagate_apart() -> None:
    """Make DTensor find the shapes of whole tensors in a fake mode of its own, and offsets in none.

    Else it uses the mode that is active: its whole tensors look like tensors of this rank, and
    an offset that it computes with tensors has no number.
    """
    mode = import_module("torch._subclasses.fake_tensor").FakeTensorMode()
    propagation: Any = import_module("torch.distributed.tensor._sharding_prop")
    propagation.detect_fake_mode = lambda *inputs: mode
    shapes: Any = import_module("torch.distributed.tensor._utils")
    compute = shapes._compute_local_shape_and_global_offset

    def compute_for_real(*args: Any, **kwargs: Any) -> Any:
        with outside_of_modes():
            return compute(*args, **kwargs)

    shapes._compute_local_shape_and_global_offset = compute_for_real


def in_backward() -> bool:
    """Return whether the autograd engine runs this code."""
    return torch._C._current_graph_task_id() != -1


def after_backward(call: Callable[[], None]) -> None:
    """Call a function when the backward pass that runs now has ended."""
    engine: Any = torch.autograd.Variable._execution_engine
    engine.queue_callback(call)


def foreach_as_on_gpus() -> None:
    """Make optimizers update fake tensors on the CPU as they do those on a GPU: all at once."""
    fake: Any = import_module("torch._subclasses.fake_tensor").FakeTensor
    optimizer: Any = import_module("torch.optim.optimizer")
    each: Any = import_module("torch.utils._foreach_utils")
    optimizer._foreach_supported_types.append(fake)
    each._foreach_supported_types.append(fake)
    devices = [*each._get_foreach_kernels_supported_devices(), "cpu"]
    optimizer._get_foreach_kernels_supported_devices = lambda: devices


def step_always() -> None:
    """Make a GradScaler call the optimizer whatever the gradients are."""

    def step(self: object, optimizer: Optimizer, state: object, *args: Any, **kwargs: Any) -> Any:
        return optimizer.step(*args, **kwargs)

    scaler: Any = torch.amp.GradScaler
    scaler._maybe_opt_step = step


def stages_agree(shapes: list[list[Any]]) -> None:
    """Make pipeline stages expect what stage 0 sends, and tell one another nothing.

    Every stage but the last gives what stage 0 gives, and gets its gradient back.

    Args:
        shapes: Shape, stride and dtype of each tensor; filled in if stage 0 is on this rank.
    """
    made: Any = import_module("torch.distributed.pipelining._utils")
    stage: Any = import_module("torch.distributed.pipelining.stage").PipelineStage

    def send(self: object, meta: Any, to: int) -> None:
        if isinstance(meta, made._StageForwardMeta) and not shapes:
            for m in meta.forward_metas:
                dtype = str(m.dtype).removeprefix("torch.")
                shapes.append([list(m.shape), list(m.stride), dtype])

    def receive(self: Any, source: int) -> Any:
        back = source > self.stage_index
        metas = tuple(
            made._TensorMeta(torch.Size(shape), tuple(stride), getattr(torch, dtype), not back)
            for shape, stride, dtype in shapes
        )
        return made._StageBackwardMeta(metas) if back else made._StageForwardMeta(metas)

    def not_known_before(self: object, received: object = None) -> Tensor:
        with outside_of_modes():
            return torch.zeros(1, dtype=torch.int32)

    stage._send_meta, stage._recv_meta = send, receive
    stage._warmup_backward_result = not_known_before


def left_out_of_ddp(model: nn.Module) -> set[str]:
    """Return the names that `leave_out_of_ddp` was given."""
    return set(getattr(model, "_ddp_params_and_buffers_to_ignore", ()))


def swap_nothing() -> None:
    """Make `nn.Module.to` and its like replace parameters: fake ones cannot be swapped in place.

    Modules that share a parameter share the new one.
    """
    moved: Any = import_module("torch.utils.weak").WeakIdKeyDictionary()

    def apply(self: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        for child in self.children() if recurse else ():
            child._apply(change)
        for held in (self._parameters, self._buffers):
            for name, old in held.items():
                if old is None:
                    continue
                if old not in moved:
                    with torch.no_grad():
                        new = change(old)
                    if new is old:
                        continue
                    if isinstance(old, nn.Parameter):
                        new = nn.Parameter(new, old.requires_grad)
                    moved[old] = new
                held[name] = moved[old]
        return self

    nn.Module._apply = apply  # type: ignore[method-assign]
