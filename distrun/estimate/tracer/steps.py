"""The step that counts: from the end of the optimizer's first step to the end of its second."""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from distrun.estimate.tracer.collectives import tensors_in
from distrun.estimate.tracer.devices import Inputs
from distrun.estimate.tracer.recorder import Recorder
from distrun.estimate.tracer.replica import REDUCERS
from distrun.estimate.tracer.sharding import Sharded
from distrun.torch_fakes import in_backward


class StepsAreDoneError(BaseException):
    """Raised where the script has made its second step; no `except Exception` catches it."""


class Steps:
    """Watches modules and optimizers, and stops the script after two steps."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._counted: Optimizer | None = None
        self.done = 0
        self._depth = 0
        self._optimizers: dict[Optimizer, None] = {}
        self._modules: dict[nn.Module, None] = {}
        self.samples = 0
        """Rows of the inputs of the model, over the micro-batches of a step."""
        self._hooks = [
            register_module_forward_pre_hook(self._before_forward),
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]

    def remove(self) -> None:
        """Watch no more."""
        for hook in self._hooks:
            hook.remove()

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters that optimizers update."""
        found = {
            id(p): p
            for optimizer in self._optimizers
            for group in optimizer.param_groups
            for p in group["params"]
        }
        return list(found.values())

    @property
    def optimizers(self) -> list[Optimizer]:
        """Those that have made a step."""
        return list(self._optimizers)

    def _before_forward(self, module: nn.Module, inputs: Any) -> None:
        if in_backward() or not torch.is_grad_enabled():
            return
        if not self._modules:
            ledger = self._recorder.ledger
            gc.collect()
            ledger.ready = len(ledger.entries)
        if self._recorder.phase != "forward" or not self._modules:
            self._recorder.phase = "forward"
            self._modules.setdefault(module)
        if module in self._modules:
            self.samples += next((len(x) for x in tensors_in(inputs) if x.ndim), 0)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._depth += 1
        self._optimizers.setdefault(optimizer)
        self._recorder.phase = "optimizer"
        for reducer in REDUCERS:
            for bucket in reducer.buckets:
                self._recorder.mark(bucket.flat, "gradients")
        for parameter in self.parameters:
            if parameter.grad is not None:
                self._recorder.mark(parameter.grad, "gradients")
                self._host(parameter.grad)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._depth -= 1
        if self._depth:
            return  # of an optimizer inside another, such as ZeroRedundancyOptimizer
        self._counted = self._counted or optimizer
        if optimizer is not self._counted:
            return
        self.done += 1
        if self.done == 1:
            gc.collect()
            self._recorder.forget_counts()
            self.samples = Inputs.nbytes = 0
            Inputs.are_counted = True
        else:
            self._mark_states()
            self._recorder.ledger.closed = True
            Inputs.are_counted = False
            raise StepsAreDoneError

    def _mark_states(self) -> None:
        for module in self._modules:
            for tensor in (*module.parameters(), *module.buffers()):
                self._recorder.mark(tensor, "parameters")
        for parameter in self.parameters:
            self._recorder.mark(parameter, "parameters")
            self._host(parameter)
        for optimizer in self._optimizers:
            for state in optimizer.state.values():
                for value in state.values():
                    if isinstance(value, Tensor):
                        self._recorder.mark(value, "optimizer")
                        self._host(value)

    def _host(self, tensor: Tensor) -> None:
        """Note a tensor that FSDP keeps in the memory of the host."""
        if Sharded.offloads and (block := self._recorder.block_of(tensor)) is not None:
            self._recorder.ledger.hosted.add(block)
