"""The classes that `.metadata` may name, and the types of their fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from distrun.dcp.unpickle import Constructor, Record, UnpickleError, kind
from distrun.torch_private import StorageInfo

_MAX_DIMS = 64


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds


def _list_of(item: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is list and all(type(each) is item for each in value)


def _dict_of(key: type, item: type) -> Callable[[Any], bool]:
    return lambda value: (
        type(value) is dict and all(type(k) is key and type(v) is item for k, v in value.items())
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_paths(value: Any) -> bool:
    """Return whether it is what DCP calls mappings: name -> the keys that lead to the tensor."""
    return _dict_of(str, tuple)(value) and all(
        type(key) in (str, int) for keys in value.values() for key in keys
    )


def _size(numbers: Any) -> torch.Size:
    if type(numbers) is not tuple or len(numbers) > _MAX_DIMS:
        raise UnpickleError(f"a size is {kind(numbers)}, or has more than {_MAX_DIMS} dimensions")
    if wrong := [number for number in numbers if not _is_count(number)]:
        raise UnpickleError(f"a size holds {wrong[0] if type(wrong[0]) is int else kind(wrong[0])}")
    return torch.Size(numbers)


def _layout(name: Any) -> torch.layout:
    if name != "torch.strided":
        raise UnpickleError("a tensor is not strided")
    return torch.strided


def _memory_format(*arguments: Any) -> torch.memory_format:
    """Return the value of a `_MEM_FORMAT_ENCODING`; DCP saves only contiguous tensors."""
    # Python 3.11.0 to 3.11.3 write an enum as getattr(class, name), others as class(value).
    if arguments not in ((0,), (_MEMORY_FORMAT, "TORCH_CONTIGUOUS_FORMAT")):
        raise UnpickleError("a tensor is not contiguous")
    return torch.contiguous_format


def _properties(state: Any) -> dict[str, Any]:
    """Return the fields of what `TensorProperties.__getstate__` returned."""
    if type(state) is not tuple or len(state) != len(_PROPERTIES):
        raise UnpickleError(f"the state of a TensorProperties is {kind(state)}")
    return dict(zip(_PROPERTIES, state, strict=True))


_PROPERTIES = {
    "dtype": _is(torch.dtype),
    "layout": _is(torch.layout),
    "requires_grad": _is(bool),
    "memory_format": _is(torch.memory_format),
    "pin_memory": _is(bool),
}
_TEXT_OR_NONE = _is(str, type(None))
_MEMORY_FORMAT = Constructor(_memory_format)
_RECORDS = (
    Record(
        Metadata,
        {
            "state_dict_metadata": _dict_of(str, TensorStorageMetadata),
            "planner_data": _are_paths,
            "storage_data": _dict_of(MetadataIndex, StorageInfo),
            "storage_meta": _is(StorageMeta),
            "version": _TEXT_OR_NONE,
        },
        frozenset({"version"}),
    ),
    Record(
        MetadataIndex,
        {
            "fqn": _is(str),
            "offset": _is(torch.Size),
            "index": lambda value: value is None or _is_count(value),
        },
    ),
    Record(
        StorageMeta,
        {
            **dict.fromkeys(("checkpoint_id", "save_id", "load_id"), _TEXT_OR_NONE),
            "modules": _list_of(str),
        },
    ),
    Record(
        TensorStorageMetadata,
        {
            "properties": _is(TensorProperties),
            "size": _is(torch.Size),
            "chunks": _list_of(ChunkStorageMetadata),
        },
    ),
    Record(ChunkStorageMetadata, {"offsets": _is(torch.Size), "sizes": _is(torch.Size)}),
    Record(TensorProperties, _PROPERTIES, state=_properties),
    Record(StorageInfo, {"relative_path": _is(str), "offset": _is_count, "length": _is_count}),
)
NAMES: dict[tuple[str, str], object] = {
    **{(record.kind.__module__, record.kind.__name__): record for record in _RECORDS},
    **{("torch", name): it for name, it in vars(torch).items() if isinstance(it, torch.dtype)},
    ("torch", "Size"): Constructor(_size),
    ("torch.serialization", "_get_layout"): Constructor(_layout),
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"): _MEMORY_FORMAT,
    ("builtins", "getattr"): _MEMORY_FORMAT,
}
"""(module, name) -> what the unpickler uses for it."""
