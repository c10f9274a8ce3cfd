"""What a rank sends in one step of a recipe's own loop, and what it keeps: counted, in bytes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.utils._python_dispatch import TorchDispatchMode

from distrun.comm import World
from tests.recipes.curves import Case, imported, train
from tests.recipes.launching import giving_way

COUNTED = 2
"""In the first two steps DDP finds out in which order gradients come."""
NAMES = {
    "allreduce_": "all_reduce",
    "_allgather_base_": "all_gather",
    "all_gather_into_tensor": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_tensor": "reduce_scatter",
    "all_to_all_single": "all_to_all",
    "broadcast_": "broadcast",
}
"""c10d's names, and those of its functional collectives."""
SILENT = {"wait_tensor", "_wrap_tensor_autograd", "recv_"}
NUMBER_NBYTES = 64
"""Losses, norms and counts, which are no part of any formula, are not larger."""


class Measured(NamedTuple):
    """Of one case on one rank."""

    counts: list[dict[str, int]]
    """Messages of a step by kind: as counted here, and by CommDebugMode if it can."""
    sent: dict[str, int]
    """Bytes of a step by kind; of a collective the whole buffer, which is n times the part."""
    weights: int
    gradients: int
    """The most of them, just before the norm is taken."""
    state: int
    """Of AdamW's averages."""
    activations: int
    """What forward keeps for backward, weights apart; 0 where there is no `loss(model, …)`."""
    largest: int
    """The largest tensor of it."""


class Messages(TorchDispatchMode):
    """Counts as CommDebugMode does, which sees no send, and takes one forward pass alone."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it comes back as messages of its parts
        out = func(*args, **(kwargs or {}))
        if func.namespace in ("c10d", "_c10d_functional"):
            name = func._schema.name.partition("::")[2]
            self.counts[name] += 1
            # what others send one here by all_to_all is theirs; a gather's buffer is its result
            made = 0 if name.startswith("all_to_all") else _nbytes(out)
            if (nbytes := max(_nbytes(args), made)) > NUMBER_NBYTES:
                self.sent[name] += nbytes
        return out


def _nbytes(values: Any) -> int:
    """Return the size of the largest tensor among arguments, or of a list of them together."""
    if isinstance(values, Tensor):
        return values.nbytes
    if isinstance(values, list):
        return sum(map(_nbytes, values))
    return max(map(_nbytes, values), default=0) if isinstance(values, tuple) else 0


def by_our_names(counts: dict[str, int]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for name, count in counts.items():
        if name not in SILENT:
            found[NAMES.get(name, name)] += count
    return dict(found)


def local(tensor: Any) -> Tensor:
    """Return this rank's part, once it has come."""
    tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    plain: Tensor = tensor.wait() if hasattr(tensor, "wait") else tensor
    return plain


class Meter:
    """Stands between a recipe and four functions that it calls by name."""

    def __init__(self, module: ModuleType, count_theirs: bool) -> None:
        self._module, self._count_theirs = module, count_theirs
        self._parameters: list[Tensor] = []
        self._optimizer: Any = None
        self._own: set[int] = set()
        self.counts: list[dict[str, int]] = []
        self.sent: dict[str, int] = {}
        self.gradients = self.activations = self.largest = 0

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        module = self._module
        before = {n: getattr(module, n) for n in ("batches", "build_optimizer", "loss")}
        clip = module.optim.clip_grad_norm
        for name, plain in before.items():
            setattr(module, name, getattr(self, f"_{name}")(plain))
        module.optim.clip_grad_norm = self._clip(clip)
        try:
            yield
        finally:
            module.optim.clip_grad_norm = clip
            for name, plain in before.items():
                setattr(module, name, plain)

    def _batches(self, plain: Callable[..., Any]) -> Any:
        def batches(*args: Any) -> Iterator[Any]:
            for item in plain(*args):
                if item[0] != COUNTED:
                    yield item
                    continue
                theirs = CommDebugMode() if self._count_theirs else contextlib.nullcontext()
                with Messages() as ours, theirs:
                    yield item  # the loop's body runs here
                self.counts.append(by_our_names(ours.counts))
                self.sent = by_our_names(ours.sent)
                if isinstance(theirs, CommDebugMode):
                    seen = theirs.get_comm_counts().items()
                    named = {str(op).rpartition(".")[2]: n for op, n in seen}
                    self.counts.append(by_our_names(named))

        return batches

    def _build_optimizer(self, plain: Callable[..., Any]) -> Any:
        def build(model: torch.nn.Module, config: Any) -> Any:
            self._parameters = list(model.parameters())
            self._own = {local(p.data).untyped_storage().data_ptr() for p in self._parameters}
            self._optimizer = plain(model, config)
            return self._optimizer

        return build

    def _clip(self, plain: Callable[..., Any]) -> Any:
        def clip(*args: Any, **kwargs: Any) -> Any:
            grads = [local(p.grad).nbytes for p in self._parameters if p.grad is not None]
            self.gradients = max(self.gradients, sum(grads))
            return plain(*args, **kwargs)

        return clip

    def _loss(self, plain: Callable[..., Any]) -> Any:
        def loss(*args: Any) -> Any:
            kept: dict[int, Tensor] = {}  # a tensor that lives keeps its address to itself

            def note(tensor: Tensor) -> Tensor:
                part = local(tensor)
                if (where := part.untyped_storage().data_ptr()) not in self._own:
                    kept[where] = part
                return tensor

            with saved_tensors_hooks(note, lambda tensor: tensor):
                out = plain(*args)
            sizes = [tensor.untyped_storage().nbytes() for tensor in kept.values()]
            self.activations = max(self.activations, sum(sizes))
            self.largest = max(self.largest, *sizes, 0)
            return out

        return loss

    def measured(self) -> Measured:
        """Return all of it, when training is over."""
        optimizer = getattr(self._optimizer, "optim", self._optimizer)  # that of ZeRO's share
        state = [v for of in optimizer.state.values() for k, v in of.items() if k != "step"]
        return Measured(
            self.counts,
            self.sent,
            sum(local(p.data).nbytes for p in self._parameters),
            self.gradients,
            sum(local(each).nbytes for each in state),
            self.activations,
            self.largest,
        )


def measure(cases: list[Case], world: World) -> list[Measured]:
    """Train cases, one behind the other; return what each sent and kept on this rank."""
    results = []
    for case in cases:
        one_pass = case.recipe != "pp" and case.settings.get("accumulate", 1) == 1
        meter = Meter(imported(case.recipe), one_pass)
        with meter.attached(), giving_way():
            train(case, world)
        results.append(meter.measured())
    return results
