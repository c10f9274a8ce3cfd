"""Turns functions that judge one GPU, host or node into rules over all nodes.

Such a function yields observations without the names of node and device; they are filled in here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from distrun.checks.limits import Limits
from distrun.checks.rule import Judge, Observation, Severity, Workload
from distrun.probe.snapshot import Gpu, Host, Missing, Node

CheckGpu = Callable[[Gpu, Workload, Limits], Iterator[Observation]]
CheckHost = Callable[[Host, Workload, Limits], Iterator[Observation]]
CheckNode = Callable[[Node, Workload, Limits], Iterator[Observation]]


class Snapshot(Protocol):
    """An object of a snapshot with the reasons for its missing fields."""

    @property
    def missing(self) -> Missing:
        """Field -> why it is None."""


def each_gpu(check: CheckGpu) -> Judge:
    """Make a rule that judges each GPU by itself; lost GPUs are left to `gpu.lost`."""

    def judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
        for node in nodes:
            for gpu in node.nvml.gpus:
                if not gpu.lost:
                    for seen in check(gpu, job, limits):
                        yield replace(seen, node=node.name, device=device(gpu))

    return judge


def each_gpu_of_a_rank(check: CheckGpu) -> Judge:
    """Make a rule that judges each GPU that the job would use: the first ones of a node."""

    def judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
        for node in nodes:
            gpus = node.nvml.present
            for gpu in gpus[: job.nproc_per_node] if job.uses_gpus else gpus:
                for seen in check(gpu, job, limits):
                    yield replace(seen, node=node.name, device=device(gpu))

    return judge


def each_host(check: CheckHost) -> Judge:
    """Make a rule that judges each host by itself."""
    return each_node(lambda node, job, limits: check(node.host, job, limits))


def each_node(check: CheckNode) -> Judge:
    """Make a rule that judges each node by itself, its GPUs and its host together."""

    def judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
        for node in nodes:
            for seen in check(node, job, limits):
                yield replace(seen, node=node.name)

    return judge


def device(gpu: Gpu) -> str:
    """Return `GPU 3 GPU-5f3a12bc 0000:3b:00.0`: CUDA may number GPUs in another order than NVML."""
    return " ".join(part for part in (f"GPU {gpu.index}", gpu.uuid[:12], gpu.pci_id) if part)


def unread(of: Snapshot, *fields: str) -> Iterator[Observation]:
    """Yield a SKIP with the reason why the first missing one of these facts is missing."""
    for field in fields:
        if getattr(of, field) is None or field in of.missing:
            reason = of.missing.get(field) or "not read"
            which = f" ({field})" if len(fields) > 1 else ""
            yield Observation(Severity.SKIP, reason + which, "")
            return
