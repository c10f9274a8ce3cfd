"""What functions of torch.cuda answer in a trace: a GPU of 80 GiB that takes no time."""

from __future__ import annotations

import contextlib
from collections import Counter
from types import SimpleNamespace
from typing import Any

import torch

_NBYTES = 80 << 30


class Handle:
    """What stands for an event or a stream: nothing takes any time."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: 1.0 if name == "elapsed_time" else True


_NOTHING = (
    *("set_device", "synchronize", "empty_cache", "reset_peak_memory_stats", "init"),
    *("manual_seed", "manual_seed_all", "reset_max_memory_allocated", "ipc_collect"),
    *("set_per_process_memory_fraction", "set_rng_state", "set_stream"),
)
_NO_BYTES = (
    *("current_device", "max_memory_allocated", "memory_allocated", "memory_reserved"),
    *("max_memory_reserved", "utilization"),
)
_PROPERTIES = SimpleNamespace(
    name="a GPU", total_memory=_NBYTES, multi_processor_count=132, major=9, minor=0
)
_ANSWERS: dict[str, Any] = {
    **dict.fromkeys(_NOTHING),
    **dict.fromkeys(_NO_BYTES, 0),
    "get_device_capability": (9, 0),
    "get_device_name": "a GPU",
    "get_device_properties": _PROPERTIES,
    "get_rng_state": torch.zeros(16, dtype=torch.uint8),
    "is_available": True,
    "is_bf16_supported": True,
    "is_initialized": True,
    "mem_get_info": (_NBYTES, _NBYTES),
    "memory_stats": Counter(),
    "memory_summary": "",
}


def answer(nproc_per_node: int) -> None:
    """Make calls that set up or ask a GPU harmless.

    Args:
        nproc_per_node: GPUs of a node.
    """
    for name, value in {**_ANSWERS, "device_count": nproc_per_node}.items():
        setattr(torch.cuda, name, lambda *args, value=value, **kwargs: value)
    for name in ("range_push", "range_pop", "mark", "range_start", "range_end"):
        setattr(torch.cuda.nvtx, name, lambda *args, **kwargs: 0)
    torch.cuda.nvtx.range = lambda *args, **kwargs: contextlib.nullcontext()  # type: ignore[assignment]
    torch.cuda.Event = torch.cuda.Stream = Handle  # type: ignore[misc, assignment]
    torch.cuda.current_stream = torch.cuda.default_stream = Handle  # type: ignore[assignment]
    torch.cuda.stream = lambda stream: contextlib.nullcontext()  # type: ignore[assignment, return-value]
