"""Healthy machines, and how to break exactly one thing of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from distrun.checks.judge import judge
from distrun.checks.limits import Limits
from distrun.checks.rule import Finding, Workload
from distrun.probe.snapshot import Gpu, Node, Nvml, Reach
from distrun.spec.snapshot import read_snapshots

SNAPSHOTS = Path(__file__).parents[2] / "snapshots"
NAMES = ("node0", "node1", "node2", "node3")
NO_DRIVER = Nvml("no NVIDIA driver is installed", "absent")


@cache
def recorded(name: str) -> tuple[Node, ...]:
    """Return the nodes of a file of tests/snapshots, whose record.py says how it was made."""
    return tuple(read_snapshots(SNAPSHOTS / f"{name}.json", Node))


def h100(index: int) -> Gpu:
    """Return a healthy GPU of eight behind NVSwitches, at rest."""
    return recorded("healthy_8xh100")[0].nvml.gpus[index]


def server(name: str = "node0") -> Node:
    """Return a healthy node of eight H100 on two sockets, with an InfiniBand port for each."""
    (node,) = recorded("healthy_8xh100")
    address = (f"10.0.0.1{name[-1]}",)
    nics = with_field(node.host.nics, "0.addresses", address)
    host = dataclasses.replace(node.host, hostname=name, hostname_addresses=address, nics=nics)
    return dataclasses.replace(node, name=name, host=host)


def laptop() -> Node:
    """Return a machine without a GPU, in a container, as Docker makes it."""
    (node,) = recorded("vm_without_nvml")
    host = dataclasses.replace(
        node.host,
        cpu_count=8,
        usable_cores=2.0,
        memory_limit_nbytes=4 << 30,
        memory_available_nbytes=9 << 30,
        shm_total_nbytes=64 << 20,
        shm_free_nbytes=64 << 20,
        nofile=1024,
        clock_synchronized=False,
    )
    return dataclasses.replace(node, host=host)


def cluster() -> tuple[Node, ...]:
    """Return four equal nodes that reach one another; node0 asks for the clocks."""
    return tuple(map(_among_others, NAMES))


def _among_others(name: str) -> Node:
    node = server(name)
    reaches = tuple(
        Reach(name, other, f"10.0.0.1{other[-1]}", port)
        for other in NAMES
        if other != name
        for port in (29500, 41234)
    )
    host = node.host
    if name != "node0":
        host = dataclasses.replace(host, clock_offset_s=0.002, clock_offset_error_s=0.001)
    return dataclasses.replace(node, host=host, reaches=reaches)


def with_field(thing: Any, path: str, value: Any) -> Any:
    """Return a copy with one field changed: `0.nvml.gpus.3.temperature_c`."""
    first, _, rest = path.partition(".")
    if isinstance(thing, tuple):
        index = int(first)
        inner = with_field(thing[index], rest, value) if rest else value
        return (*thing[:index], inner, *thing[index + 1 :])
    if isinstance(thing, dict):
        assert not rest, path
        return {**thing, first: value}
    inner = with_field(getattr(thing, first), rest, value) if rest else value
    return dataclasses.replace(thing, **{first: inner})


def without_field(nodes: tuple[Node, ...], path: str, reason: str) -> tuple[Node, ...]:
    """Return copies with one fact that could not be read, and why."""
    parent, _, name = path.rpartition(".")
    nodes = with_field(nodes, path, () if name in _NEVER_NONE else None)
    return with_field(nodes, f"{parent}.missing.{name}", reason)


_NEVER_NONE = ("nics", "infiniband", "hostname_addresses", "shm_leftovers")


def job_for(nodes: Sequence[Node], **fields: Any) -> Workload:
    """Return a job on all GPUs of these nodes, or of two ranks on CPUs."""
    gpus = max(len(node.nvml.gpus) for node in nodes)
    job = Workload(gpus or 2, len(nodes), uses_gpus=gpus > 0, master_port=29500)
    return dataclasses.replace(job, **fields)


def findings(
    nodes: Sequence[Node], rule_id: str = "", job: Workload | None = None, **options: Any
) -> list[Finding]:
    """Judge nodes; only what one rule found, if it is named."""
    found = judge(nodes, job or job_for(nodes), Limits(), **options)
    return [finding for finding in found if rule_id in ("", finding.id)]
