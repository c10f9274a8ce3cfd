"""The private names of torch that a trace without devices and ranks needs; see `torch_private`.

They change how torch works in the whole process, which ends after the trace.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode as DispatchMode

__all__ = [
    "DispatchMode",
    "active_fake_mode",
    "address_of",
    "after_backward",
    "answer_lists",
    "cut_lazily",
    "default_group_name",
    "fake_mode",
    "flat_numel",
    "foreach_as_on_gpus",
    "group_named",
    "in_backward",
    "join_fake_group",
    "left_out_of_ddp",
    "outside_of_modes",
    "propagate_apart",
    "run_backward_in",
    "schema_of",
    "stages_agree",
    "step_always",
    "swap_nothing",
]

_C10D: Any = dist.distributed_c10d


def default_group_name() -> str:
    """Return the name that operations use for the default group."""
    return dist.distributed_c10d._get_default_group().group_name


def join_fake_group(rank: int, world_size: int) -> None:
    """Make a default group whose collectives return at once and send nothing."""
    fake_pg = import_module("torch.testing._internal.distributed.fake_pg")
    dist.init_process_group("fake", store=fake_pg.FakeStore(), rank=rank, world_size=world_size)


def group_named(name: str) -> dist.ProcessGroup:
    """Return the group that an operation names."""
    group: dist.ProcessGroup = _C10D._resolve_process_group(name)
    return group


def schema_of(operation: Any) -> Any:
    """Return the names of an operation's arguments, and which of them it changes."""
    return operation._schema


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


class _Cut:
    """A tensor cut among ranks along a dim; a part is made when it is asked for."""

    def __init__(self, tensor: Tensor, count: int, dim: int) -> None:
        self._tensor, self._dim = tensor, dim
        self._step = -(-tensor.shape[dim] // count)

    def __getitem__(self, part: int) -> Tensor:
        begin, size = part * self._step, self._tensor.shape[self._dim]
        if begin >= size:
            return self._tensor.new_empty(0)
        return self._tensor.narrow(self._dim, begin, min(self._step, size - begin))


def cut_lazily() -> None:
    """Make FSDP cut only this rank's part out of a parameter, and not those of thousands of ranks.

    It looks at its own part, and at the first.
    """
    parameter: Any = import_module("torch.distributed.fsdp._fully_shard._fsdp_param")
    parameter._chunk_with_empty = _Cut


def in_backward() -> bool:
    """Return whether the autograd engine runs this code."""
    return torch._C._current_graph_task_id() != -1


def run_backward_in(mode: AbstractContextManager[object]) -> None:
    """Make a function mode see what backward recomputes: torch turns it off for `backward` itself.

    Args:
        mode: Of the trace that follows; a later call replaces it.
    """
    autograd: Any = torch.autograd
    engine: Any = import_module("torch.autograd.graph")._engine_run_backward

    def run(*args: Any, **kwargs: Any) -> Any:
        with mode:
            return engine(*args, **kwargs)

    autograd._engine_run_backward = run


def after_backward(call: Callable[[], None]) -> None:
    """Call a function when the backward pass that runs now has ended."""
    engine: Any = torch.autograd.Variable._execution_engine
    engine.queue_callback(call)


def answer_lists(answer: Callable[[Tensor], Any]) -> None:
    """Set what `tolist` of a fake tensor returns: its own asks for each number by itself."""
    import_module("torch._subclasses.fake_tensor").FakeTensor.tolist = answer


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

    def not_known_before(self: object, received_result: object = None) -> Tensor:
        with outside_of_modes():
            return torch.zeros(1, dtype=torch.int32)

    stage._send_meta, stage._recv_meta = send, receive
    stage._warmup_backward_result = not_known_before


def left_out_of_ddp(model: nn.Module) -> set[str]:
    """Return the names that `leave_out_of_ddp` was given."""
    return set(getattr(model, "_ddp_params_and_buffers_to_ignore", ()))


def address_of(tensor: Tensor) -> int:
    """Return a number that tensors have alike which begin at the same place of one storage."""
    storage: Any = tensor.untyped_storage()
    return int(storage._cdata + tensor.storage_offset() * tensor.element_size())


def flat_numel(wrapper: nn.Module) -> int:
    """Return the elements, over all ranks, of the parameters that a wrapper of FSDP1 made flat."""
    handle: Any = wrapper._handle
    return handle.flat_param._unpadded_unsharded_size.numel() if handle else 0


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
