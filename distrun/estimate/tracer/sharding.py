"""FSDP on a machine without GPUs: FSDP1 shards on the CPU, and what is offloaded is noted."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch.distributed.fsdp import CPUOffloadPolicy, FullyShardedDataParallel

from distrun import torch_fakes


class Sharded:
    """What FSDP has been asked for."""

    offloads = False
    """Whether it keeps shards in the memory of the host."""
    numel = 0
    """Elements, over all ranks, of the parameters that FSDP1 has made flat."""

    @classmethod
    def forget(cls) -> None:
        """Begin with another model."""
        cls.offloads, cls.numel = False, 0


def shard_on_cpu(nproc_per_node: int) -> None:
    """Make FSDP1 take the CPU for a GPU, and note what both generations are asked for.

    Args:
        nproc_per_node: Ranks of a node, among which HYBRID_SHARD shards.
    """
    offload, shard = CPUOffloadPolicy.__init__, FullyShardedDataParallel.__init__
    signature = inspect.signature(shard)

    @functools.wraps(offload)
    def noted(policy: Any, *args: Any, **kwargs: Any) -> None:
        offload(policy, *args, **kwargs)
        Sharded.offloads = True

    @functools.wraps(shard)
    def sharded(wrapper: Any, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(wrapper, *args, **kwargs)
        first = given.arguments.get("cpu_offload")
        Sharded.offloads |= first is not None and first.offload_params
        given.arguments |= {"device_id": torch.device("cpu"), "sync_module_states": False}
        shard(*given.args, **given.kwargs)
        Sharded.numel += torch_fakes.flat_numel(wrapper)

    setattr(torch.cpu, "device_count", lambda: nproc_per_node)  # noqa: B010 - else mypy forbids it
    setattr(torch.cpu.Stream, "synchronize", lambda stream: None)  # noqa: B010 - likewise
    setattr(CPUOffloadPolicy, "__init__", noted)  # noqa: B010 - likewise
    setattr(FullyShardedDataParallel, "__init__", sharded)  # noqa: B010 - likewise
