"""The GPUs of a node that are visible to a job."""

from __future__ import annotations

from dataclasses import replace

from distrun.probe.snapshot import Node, Nvml

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def names_gpus(devices: str | None) -> bool:
    """Return whether CUDA_VISIBLE_DEVICES names any GPU, existing or not; "" and -1 hide all."""
    return devices is None or devices.lstrip().startswith((*"0123456789", "GPU-", "MIG-"))


def as_ranks_see_it(node: Node, visible: str | None) -> Node:
    """Return a node with only the GPUs that CUDA_VISIBLE_DEVICES names.

    Args:
        node: The node with all GPUs.
        visible: The value of the variable for the ranks; None: unset, so all GPUs.
    """
    environ = {name: value for name, value in node.host.environ.items() if name != _VISIBLE}
    if visible is not None:
        environ[_VISIBLE] = visible
    host = replace(node.host, environ=environ)
    return replace(node, nvml=_only(node.nvml, visible), host=host)


def _only(nvml: Nvml, visible: str | None) -> Nvml:
    if visible is None or "MIG-" in visible:  # MIG instances are not in NVML's list of GPUs
        return nvml
    names = nvml.visible(visible)
    gpus = tuple(gpu for gpu in nvml.gpus if any(map(gpu.answers_to, names)))
    kept = {gpu.index for gpu in gpus}
    pairs = tuple(pair for pair in nvml.pairs if {pair.a, pair.b} <= kept)
    return replace(nvml, gpus=gpus, pairs=pairs)
