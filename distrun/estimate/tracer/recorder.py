"""Records every operation of a rank: what it allocates, computes and sends."""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.weak import WeakIdKeyDictionary

from distrun.estimate.tracer.collectives import Call, call_of, tensors_in
from distrun.estimate.tracer.ledger import Ledger
from distrun.estimate.tracer.products import Attended, Product, attention_of, matmul_of
from distrun.estimate.work import Kind, Phase
from distrun.torch_fakes import (
    DispatchMode,
    active_fake_mode,
    in_backward,
    outside_of_modes,
    schema_of,
)

_GATHERED = {"c10d::_allgather_base_": 0, "c10d::_reduce_scatter_base_": 1, "fsdp::chunk_cat": 0}
"""Operations of FSDP -> the argument that is whole weights, or whole gradients."""
_STREAMS = {"c10d::_allgather_base_": "all_gather", "c10d::_reduce_scatter_base_": "reduce_scatter"}
"""Operations of FSDP whose result is allocated on a stream of its own."""
FSDP = "/torch/distributed/fsdp/"
"""A part of the names of FSDP's files."""
_WRAPPERS = (FSDP, "/estimate/tracer/replica.py")
_MODULES = "/torch/nn/modules/module.py"
"""What is called inside a module's forward is not of its wrapper."""
_NO_KERNEL = (
    *("prim::", "aten::empty", "aten::new_empty", "aten::_unsafe_view"),
    *("_c10d_functional::wait_tensor", "fsdp::"),
)
"""Beginnings of names of operations that move nothing, or what is known to be in the efficiency of
products, which was fitted on FSDP: its copies to and from its buffers."""
_PICKS = {
    "aten::embedding": 0,
    "aten::gather": 0,
    "aten::index_put_": 0,
    "aten::nll_loss_forward": 0,
    "aten::nll_loss_backward": 1,
    "aten::ones_like": 0,
    "aten::zeros_like": 0,
}
"""Operations -> the argument of which they touch a few elements, or none."""


class Recorder(DispatchMode):
    """The mode under which a script runs; `fake` is the mode below it."""

    inside_schedule = False
    """Whether a pipeline's schedule runs: what it does between two passes belongs to them."""

    def __init__(self, fake: DispatchMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake = fake
        self.ledger = Ledger()
        self.phase: Phase = "forward"
        self.collectives: Counter[tuple[Call, Phase]] = Counter()
        self.matmuls: Counter[tuple[Product, Phase]] = Counter()
        self.attention: Counter[tuple[Attended, Phase]] = Counter()
        self.moved: Counter[Phase] = Counter()
        self.recurring: set[tuple[Call, Phase]] = set()
        """Collectives that more than one micro-batch has."""
        self._first_pass: dict[tuple[Call, Phase], int] = {}
        self._passes = 0
        """Backward passes that have begun."""
        self.beside: set[str] = set()
        """Groups along which FSDP or DistributedDataParallel sends weights and gradients."""
        self.sharded = 0
        """Elements of its shards that FSDP has gathered or reduced."""
        self.kernels = 0
        """Operations of forward and backward that a GPU is told one by one."""
        self._looked_up: Counter[torch.Size] = Counter()
        self._blocks: Any = WeakIdKeyDictionary()  # storage -> [block, nbytes]
        self._count = 0
        self._resize = torch.UntypedStorage.resize_

    def __enter__(self) -> Recorder:
        plain = self._resize

        def resize(storage: torch.UntypedStorage, nbytes: int) -> Any:
            result = plain(storage, nbytes)
            if storage in self._blocks:
                self._see(storage, "gathered")
            return result

        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign, assignment]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def forget_counts(self) -> None:
        """Begin the step that counts: keep what is allocated, forget what was done."""
        for counter in (self.collectives, self.matmuls, self.attention, self.moved):
            counter.clear()
        self._looked_up.clear()
        self.beside.clear()
        self.recurring.clear()
        self._first_pass.clear()
        self.kernels = self.sharded = 0
        self.ledger.begin = len(self.ledger.entries)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if any(kind is DTensor for kind in types):
            return NotImplemented  # DTensor calls the operations on its local parts
        if active_fake_mode() is not self.fake:
            return func(*args, **(kwargs or {}))  # DTensor looks for the shape of a whole tensor
        name = func.name().partition(".")[0]
        if name in ("aten::_local_scalar_dense", "aten::equal"):
            return self._number(func, name, args)
        result = func(*args, **(kwargs or {}))
        self._note_phase()
        for tensor in tensors_in(result):
            self._see(tensor.untyped_storage())
        if not self.ledger.closed:
            self._count_work(name, func, args, kwargs or {}, result)
        return result

    def _number(self, func: Any, name: str, args: Sequence[Any]) -> Any:
        """Answer an operation that reads a number, which fake tensors have not."""
        if all(type(tensor) is Tensor for tensor in args):
            with outside_of_modes():
                return func(*args)
        if getattr(args[0], "constant", None) is not None:  # the script has just written it
            return func(*args)
        return True if name == "aten::equal" else _one(args[0])

    def _note_phase(self) -> None:
        if in_backward():
            self._passes += self.phase != "backward"
            self.phase = "backward"
        elif self.phase == "backward" and not self.inside_schedule:
            self.phase = "optimizer"

    def _count_work(
        self, name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: object
    ) -> None:
        is_view = _is_view(func)
        is_kernel = not is_view and not name.startswith(_NO_KERNEL)
        self.kernels += is_kernel and self.phase != "optimizer"
        if (call := call_of(name, func, args, result)) is not None:
            self.collectives[call, self.phase] += 1
            if self._first_pass.setdefault((call, self.phase), self._passes) != self._passes:
                self.recurring.add((call, self.phase))
            if name.startswith("c10d::") and call.group not in self.beside and _is_of_wrapper():
                self.beside.add(call.group)
            self._mark_gathered(name, args)
        elif (product := matmul_of(name, args, result)) is not None:
            self.matmuls[product, self.phase] += 1
        elif (attention := attention_of(name, args, kwargs)) is not None:
            self.attention[attention, "backward" if name.endswith("_backward") else "forward"] += 1
        elif not is_view:
            if name == "aten::embedding" and self.phase == "forward":
                self._looked_up[args[0].shape] += args[1].numel()
            self._mark_gathered(name, args)
            if is_kernel:
                self.moved[self.phase] += _moved_nbytes(name, func, args, kwargs, result)

    def _mark_gathered(self, name: str, args: Sequence[Any]) -> None:
        if name in _GATHERED:
            for tensor in tensors_in(args[_GATHERED[name]]):
                self.mark(tensor, "gathered")
        if name in _STREAMS:
            self.sharded += args[1 - _GATHERED[name]].numel()
        if name in _STREAMS and (block := self.block_of(args[0])) is not None:
            self.ledger.streams[block] = _STREAMS[name]

    @property
    def tokens(self) -> int:
        """The most rows that an embedding was asked for; others are of positions, or of types."""
        return max(self._looked_up.values(), default=0)

    # --- memory -----------------------------------------------------------------------

    def block_of(self, tensor: Tensor) -> int | None:
        """Return the number of a tensor's allocation."""
        found = self._blocks.get(local(tensor).untyped_storage())
        return None if found is None else found[0]

    def mark(self, tensor: Tensor, kind: Kind) -> None:
        """Say what a tensor is."""
        if (block := self.block_of(tensor)) is not None:
            self.ledger.kinds[block] = kind

    def _see(self, storage: torch.UntypedStorage, kind: Kind | None = None) -> None:
        """Note a storage that is new, or has another size."""
        nbytes = storage.size()
        held = self._blocks.get(storage)
        if held is None:
            held = [-1, 0]
            self._blocks[storage] = held
            weakref.finalize(storage, self._free, held)
        if nbytes == held[1]:
            return
        self._free(held)
        if nbytes:
            self._count += 1
            held[:] = [self._count, nbytes]
            self.ledger.note(self._count, nbytes, self.phase)
            if kind is not None:
                self.ledger.kinds[self._count] = kind
            if self.phase == "forward" or (self.phase == "backward" and torch.is_grad_enabled()):
                self.ledger.saved.add(self._count)

    def _free(self, held: list[int]) -> None:
        block, nbytes = held
        if nbytes:
            held[1] = 0
            self.ledger.note(block, 0, self.phase)


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _is_of_wrapper() -> bool:
    """Return whether FSDP, or what stands for DistributedDataParallel, calls the collective."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.endswith(_MODULES):
        if any(part in frame.f_code.co_filename for part in _WRAPPERS):
            return True
        frame = frame.f_back
    return False


def _is_view(func: Any) -> bool:
    returns = schema_of(func).returns
    alias = returns[0].alias_info if returns else None
    return alias is not None and not alias.is_write


def _moved_nbytes(
    name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: object
) -> int:
    """Return the bytes that an operation reads and writes."""
    picked = args[_PICKS[name]] if name in _PICKS else None
    touched = [*tensors_in(args), *tensors_in(list(kwargs.values())), *tensors_in(result)]
    if not schema_of(func).returns:  # what it writes is among what it reads
        for value, of in zip(args, schema_of(func).arguments, strict=False):
            touched += tensors_in(value) if of.alias_info and of.alias_info.is_write else []
    return sum(tensor.nbytes for tensor in touched if tensor is not picked)


def _one(tensor: Tensor) -> Any:
    """Return 1 of the tensor's dtype: True of bool."""
    if tensor.dtype == torch.bool:
        return True
    return 1.0 if tensor.is_floating_point() else 1
