"""A GPU with fewer PCIe lanes than it supports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from distrun.checks.each import device, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu, Node


def _judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
    for node in nodes:
        gpus = node.nvml.present
        alike = len(gpus) > 1 and len({gpu.pcie_width for gpu in gpus}) == 1
        for gpu in gpus:
            for seen in _check(gpu, alike=alike):
                yield replace(seen, node=node.name, device=device(gpu))


def _check(gpu: Gpu, *, alike: bool) -> Iterator[Observation]:
    width, most = gpu.pcie_width, gpu.pcie_width_max
    if width is None or most is None:
        yield from unread(gpu, "pcie_width", "pcie_width_max")
    elif width < most:
        # If it is all GPUs, the board is built so, like a workstation that shares 16 lanes.
        severity = Severity.INFO if alike else Severity.WARN
        yield Observation(severity, f"PCIe x{width}", f"x{most}")


RULE = Rule(
    id="gpu.pcie.width",
    title="PCIe lanes",
    why="Half of the lanes is half of the bandwidth to the host and, without NVLink, to the"
    " other GPUs: every all_reduce runs at the speed of this slot.",
    fix="Reseat the card and its riser, and check the slot's setting in the BIOS (bifurcation);"
    " `nvidia-smi -q -d PCIE` shows both widths.",
    source="Azure/azurehpc-health-checks",
    judge=_judge,
    gpus_only=True,
)
