"""Stand-ins for what a trace has not: ranks, numbers, a compiler, files. See `devices` for GPUs.

The process ends after the trace: nothing is put back.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint, device_mesh
from torch.distributed.checkpoint import state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.utils.data import DataLoader

from distrun import torch_fakes
from distrun.estimate.tracer import cuda_calls
from distrun.estimate.tracer.devices import cpu_for_gpu
from distrun.estimate.tracer.replica import Replica
from distrun.estimate.tracer.routing import listed
from distrun.estimate.tracer.sharding import shard_on_cpu

MESHES: list[DeviceMesh] = []
"""Every mesh that the script has made."""
NOTES: dict[str, None] = {}
"""What the trace leaves out, one sentence each."""


class RefusedError(SystemExit):
    """The script's own parser has refused its command line."""


def install(rank: int, world_size: int, nproc_per_node: int) -> None:
    """Put every stand-in in its place."""
    torch_fakes.propagate_apart()  # first: it imports the compiler, which lists functions
    torch_fakes.foreach_as_on_gpus()
    torch_fakes.answer_lists(listed)
    torch_fakes.cut_lazily()
    torch_fakes.step_always()
    torch_fakes.swap_nothing()
    _ranks(rank, world_size)
    _compilers_and_data()
    _files()
    cpu_for_gpu()
    shard_on_cpu(nproc_per_node)
    cuda_calls.answer(nproc_per_node)
    put(nn.parallel, DistributedDataParallel=Replica)
    put(nn.parallel.distributed, DistributedDataParallel=Replica)


def prepare_libraries(source: str) -> None:
    """Keep Lightning from numbers and its check of GPUs, and transformers from compilers.

    Args:
        source: Of the script: what it does not name is not imported.
    """
    for package in ("lightning.pytorch", "pytorch_lightning"):
        if package.partition(".")[0] in source and importlib.util.find_spec(package.split(".")[0]):
            put(importlib.import_module(package).LightningModule, log=nothing, log_dict=nothing)
            accelerators = importlib.import_module(f"{package}.accelerators")
            put(accelerators.CUDAAccelerator, setup_device=nothing)  # refuses what is no GPU
    if "transformers" in source and importlib.util.find_spec("transformers"):
        utils = importlib.import_module("transformers.utils.import_utils")
        put(utils, is_fake_tensor=lambda tensor: False)  # else attention gets a mask it never needs


def put(where: Any, **names: Any) -> None:
    """Set attributes of a module or class."""
    for name, value in names.items():
        setattr(where, name, value)


def nothing(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


def for_real(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that works with numbers: no mode sees what it does."""

    @functools.wraps(function)
    def outside(*args: Any, **kwargs: Any) -> Any:
        with torch_fakes.outside_of_modes():
            return function(*args, **kwargs)

    return outside


def _ranks(rank: int, world_size: int) -> None:
    torch_fakes.join_fake_group(rank, world_size)
    groups = dist.new_group

    def new_group(*args: Any, **kwargs: Any) -> Any:
        with torch_fakes.outside_of_modes():
            return groups(*args[:2], **{**kwargs, "backend": "fake", "pg_options": None})

    def gather(objects: list[Any], mine: Any, *args: Any, **kwargs: Any) -> None:
        objects[:] = [mine] * len(objects)

    backends = ["nccl"]

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        backends.append(backend or "nccl")

    put(
        dist,
        init_process_group=init_process_group,
        get_backend=lambda group=None: backends[-1],
        destroy_process_group=nothing,
        barrier=nothing,
        monitored_barrier=nothing,
        broadcast_object_list=nothing,
        all_gather_object=gather,
        new_group=new_group,
    )
    _meshes()


def _meshes() -> None:
    """Keep every mesh, and make its ranks real numbers."""
    make = DeviceMesh.__init__

    @functools.wraps(make)
    def kept(mesh: DeviceMesh, device_type: str, *args: Any, **kwargs: Any) -> None:
        with torch_fakes.outside_of_modes():
            make(mesh, "cpu", *args, **kwargs)
        MESHES.append(mesh)

    plain = device_mesh.init_device_mesh
    init = for_real(plain)
    for module in [*sys.modules.values()]:  # FSDP has imported it by its name
        if getattr(module, "__dict__", {}).get("init_device_mesh") is plain:
            put(module, init_device_mesh=init)
    put(
        DeviceMesh,
        __init__=kept,
        __getitem__=for_real(DeviceMesh.__getitem__),
        from_group=staticmethod(for_real(DeviceMesh.from_group)),
    )


def _compilers_and_data() -> None:
    """Trace eagerly, and load data in this process and for real."""

    def eager(function: Any = None, *args: Any, **kwargs: Any) -> Any:
        NOTES.setdefault("torch.compile is left out: the trace is of eager operations")
        if isinstance(function, nn.Module):
            object.__setattr__(function, "_orig_mod", function)  # no child of itself
        return function if callable(function) else lambda given: given

    load = DataLoader.__init__

    @functools.wraps(load)
    def in_this_process(loader: Any, *args: Any, **kwargs: Any) -> None:
        alone = dict.fromkeys(("prefetch_factor", "multiprocessing_context"))
        kwargs |= {**alone, "num_workers": 0, "pin_memory": False, "persistent_workers": False}
        load(loader, *args[:5], **kwargs)

    def items(loader: DataLoader[Any]) -> Any:
        made = for_real(plain)(loader)
        while True:
            try:
                yield for_real(next)(made)
            except StopIteration:
                return

    plain = DataLoader.__iter__
    put(DataLoader, __init__=in_this_process, __iter__=items)

    def refuse(parser: object, message: str) -> None:
        raise RefusedError(message)

    put(argparse.ArgumentParser, error=refuse)

    def alone(module: nn.Module, *args: object) -> nn.Module:
        NOTES.setdefault("SyncBatchNorm is traced as BatchNorm: what it sends is left out")
        return module

    put(torch, compile=eager)
    put(nn.SyncBatchNorm, convert_sync_batchnorm=alone)
    put(nn.Module, compile=eager)


def _files() -> None:
    """Write no weights, and give back what the script would find in its files."""
    saved: dict[str, Any] = {}
    read = torch.load

    def save(value: object, file: Any, *args: object, **kwargs: object) -> None:
        saved[str(file)] = value

    @functools.wraps(read)
    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        return saved[str(file)] if str(file) in saved else read(file, *args, **kwargs)

    put(torch, save=save, load=load)
    put(checkpoint, save=nothing, async_save=nothing, load=nothing)
    put(state_dict, set_model_state_dict=nothing)  # numbers do not count here
    if importlib.util.find_spec("safetensors"):
        put(importlib.import_module("safetensors.torch"), save_file=nothing, save_model=nothing)
