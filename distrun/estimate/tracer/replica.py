"""DistributedDataParallel as Python: torch's own reads addresses, which fake tensors have not.

It has the same buckets, copies and collectives as torch's has from the second step on
(https://docs.pytorch.org/docs/stable/notes/ddp.html).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distrun.estimate.buckets import buckets
from distrun.torch_fakes import after_backward, left_out_of_ddp

_MIB = 1 << 20


REDUCERS: list[Reducer] = []
"""Every one that the script has made."""


class Bucket:
    """Some gradients, one behind the other in one tensor."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        first = parameters[0]
        size = sum(p.numel() for p in parameters)
        self.flat = torch.zeros(size, dtype=first.dtype, device=first.device)
        parts = self.flat.split([p.numel() for p in parameters])
        self.views = {p: part.view(p.shape) for p, part in zip(parameters, parts, strict=True)}
        self.waits_for = set(parameters)


class Reducer:
    """Averages the gradients of one backward pass over a group."""

    def __init__(
        self, parameters: list[nn.Parameter], group: dist.ProcessGroup, cap_nbytes: int, views: bool
    ) -> None:
        self.cap_nbytes = cap_nbytes
        self.buckets: list[Bucket] = []
        self._group, self._are_views = group, views
        self._order: dict[nn.Parameter, None] = {}
        self._parameters = parameters
        self._armed = self._called = False
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._ready)
        REDUCERS.append(self)

    @property
    def sizes(self) -> list[tuple[str, int]]:
        """dtype and bytes of each gradient, in the order in which they became ready."""
        return [(str(p.dtype), p.nbytes) for p in self._order]

    def prepare_for_backward(self, outputs: object = ()) -> None:
        """Reduce the gradients of the next backward pass."""
        self._armed = True
        if self._order and not self.buckets:
            known = list(self._order)
            self.buckets = [
                Bucket([known[place] for place in places])
                for places in buckets(self.sizes, self.cap_nbytes)
            ]
        for bucket in self.buckets:
            bucket.waits_for = set(bucket.views)

    def _rebuild_buckets(self) -> None:
        """Do nothing: they are made when a backward pass is prepared. Lightning calls it."""

    def _ready(self, parameter: Tensor) -> None:
        assert isinstance(parameter, nn.Parameter)
        if not self._armed:
            return
        self._order.setdefault(parameter)
        if not self._called:
            self._called = True
            after_backward(self._finish)
        for bucket in self.buckets:
            if parameter in bucket.waits_for:
                self._fill(bucket, parameter)

    @torch.no_grad()
    def _fill(self, bucket: Bucket, parameter: nn.Parameter) -> None:
        view, grad = bucket.views[parameter], parameter.grad
        assert grad is not None
        if grad is not view:
            torch.mul(grad, 1 / self._group.size(), out=view)
        if self._are_views:
            parameter.grad = view
        bucket.waits_for.discard(parameter)
        if not bucket.waits_for:
            dist.all_reduce(bucket.flat, group=self._group)

    @torch.no_grad()
    def _finish(self) -> None:
        """Reduce what a pass left out, and copy the averages back."""
        self._armed = self._called = False
        for bucket in self.buckets:
            if bucket.waits_for:
                dist.all_reduce(bucket.flat, group=self._group)
            if not self._are_views:
                for parameter, view in bucket.views.items():
                    if parameter.grad is not None:
                        parameter.grad.copy_(view)


class Replica(DistributedDataParallel):
    """What stands for DistributedDataParallel in a trace."""

    def __init__(
        self,
        module: nn.Module,
        *ids: object,
        process_group: dist.ProcessGroup | None = None,
        device_mesh: Any = None,
        bucket_cap_mb: float | None = None,
        gradient_as_bucket_view: bool = False,
        broadcast_buffers: bool = True,
        **other: object,
    ) -> None:
        nn.Module.__init__(self)
        self.module = module
        group = device_mesh.get_group() if device_mesh is not None else process_group
        group = group or dist.group.WORLD
        assert group is not None  # the trace has made it
        self.process_group = group
        self.require_backward_grad_sync = True
        self.broadcast_buffers = broadcast_buffers
        self.static_graph, self.find_unused_parameters = True, False  # Lightning reads them
        left_out = left_out_of_ddp(module)
        own = [p for n, p in module.named_parameters() if p.requires_grad and n not in left_out]
        self._sent = [b for n, b in module.named_buffers() if n not in left_out]
        if not own:
            raise RuntimeError(
                "DistributedDataParallel is not needed when a module doesn't have any parameters"
                " that require a gradient."
            )
        cap_nbytes = int((bucket_cap_mb or 25) * _MIB)
        reducer: Any = Reducer(own, group, cap_nbytes, gradient_as_bucket_view)
        self.reducer = reducer

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Run the module; the next backward pass reduces, unless inside `no_sync`."""
        if torch.is_grad_enabled() and self.require_backward_grad_sync:
            self.reducer.prepare_for_backward([])
        if self.broadcast_buffers and self.require_backward_grad_sync:
            for buffers in _by_dtype(self._sent).values():
                flat = torch.cat([b.detach().flatten() for b in buffers])
                dist.broadcast(flat, group=self.process_group, group_src=0)
        return self.module(*inputs, **kwargs)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Only add up the gradients of passes inside."""
        before = self.require_backward_grad_sync
        self.require_backward_grad_sync = False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before

    def register_comm_hook(self, state: object, hook: Any) -> None:
        """Leave the hook out: gradients are reduced as they are."""


def _by_dtype(tensors: list[Tensor]) -> dict[torch.dtype, list[Tensor]]:
    found: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(tensor.dtype, []).append(tensor)
    return found
