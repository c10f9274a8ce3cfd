"""Which collective an operation of torch is, its size, and its group.

Sizes are those of `distrun.bandwidth.DEFINITIONS`. The operations are those of c10d, which
`torch.distributed` calls, and of its functional form, which DTensor calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor

from distrun.torch_fakes import group_named, schema_of

RESULT = -1
_C10D = {
    "allreduce_": ("all_reduce", 0),
    "allreduce_coalesced_": ("all_reduce", 0),
    "allgather_": ("all_gather", 0),
    "_allgather_base_": ("all_gather", 0),
    "allgather_coalesced_": ("all_gather", 0),
    "allgather_into_tensor_coalesced_": ("all_gather", 0),
    "reduce_scatter_": ("reduce_scatter", 1),
    "_reduce_scatter_base_": ("reduce_scatter", 1),
    "reduce_scatter_tensor_coalesced_": ("reduce_scatter", 1),
    "broadcast_": ("broadcast", 0),
    "reduce_": ("reduce", 0),
    "gather_": ("gather", 0),
    "scatter_": ("scatter", 1),
    "alltoall_": ("all_to_all", 1),
    "alltoall_base_": ("all_to_all", 1),
    "send": ("sendrecv", 0),
}
_FUNCTIONAL = {
    "all_reduce": ("all_reduce", 0),
    "all_reduce_": ("all_reduce", 0),
    "all_reduce_coalesced": ("all_reduce", 0),
    "all_reduce_coalesced_": ("all_reduce", 0),
    "all_gather_into_tensor": ("all_gather", RESULT),
    "all_gather_into_tensor_out": ("all_gather", RESULT),
    "all_gather_into_tensor_coalesced": ("all_gather", RESULT),
    "reduce_scatter_tensor": ("reduce_scatter", 0),
    "reduce_scatter_tensor_out": ("reduce_scatter", 0),
    "reduce_scatter_tensor_coalesced": ("reduce_scatter", 0),
    "all_to_all_single": ("all_to_all", 0),
    "broadcast": ("broadcast", 0),
    "broadcast_": ("broadcast", 0),
}
OPERATIONS: dict[str, tuple[str, int]] = {
    **{f"c10d::{name}": told for name, told in _C10D.items()},
    **{f"_c10d_functional::{name}": told for name, told in _FUNCTIONAL.items()},
    "_dtensor::shard_dim_alltoall": ("all_to_all", 0),
}
"""Operation -> its name in `bandwidth.DEFINITIONS`, and which argument its size is that of."""


class Call(NamedTuple):
    """One call of a collective."""

    op: str
    group: str
    """c10d's name of the process group."""
    group_size: int
    nbytes: int


def call_of(name: str, operation: Any, args: Sequence[Any], result: object) -> Call | None:
    """Return the collective that an operation is; None if it is none, or one without a size."""
    if name not in OPERATIONS:
        return None
    op, sized = OPERATIONS[name]
    group = _group(operation, args)
    nbytes = sum(t.nbytes for t in tensors_in(result if sized == RESULT else args[sized]))
    return Call(op, group.group_name, group.size(), nbytes)


def _group(operation: Any, args: Sequence[Any]) -> dist.ProcessGroup:
    names = [argument.name for argument in schema_of(operation).arguments]
    if "process_group" in names:
        boxed: Any = args[names.index("process_group")]
        return boxed if isinstance(boxed, dist.ProcessGroup) else dist.ProcessGroup.unbox(boxed)
    return group_named(args[names.index("group_name")])


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield the tensors in a value, or in lists and dictionaries of any depth."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        items: Iterable[object] = value.values() if isinstance(value, dict) else value
        for item in items:
            yield from tensors_in(item)
