"""Xid and SXid errors in the kernel log of the last two hours."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node, Xid


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    if node.host.xids is None:
        if node.nvml.gpus:
            yield from unread(node.host, "xids")
        return
    found: dict[tuple[object, ...], list[Xid]] = {}
    for xid in node.host.xids:
        found.setdefault((xid.of_switch, xid.code, xid.pci_id, xid.part), []).append(xid)
    for xids in found.values():
        last = min(xids, key=lambda xid: xid.age_s)
        kind = "SXid" if last.of_switch else "Xid"
        times = f"{len(xids)} times, last " if len(xids) > 1 else ""
        yield Observation(
            Severity.FAIL if _is_fatal(last, limits) else Severity.WARN,
            f"{kind} {last.code} {times}{last.age_s / 60:.0f} min ago: {_text(last)}",
            "none in the last 2 h",
            device=_device(node, last),
        )


def _is_fatal(xid: Xid, limits: Limits) -> bool:
    """Return whether it needs a reset: by its code for a GPU, by its own text for a switch."""
    return _text(xid).startswith("Fatal") if xid.of_switch else xid.code in limits.xids_fatal


def _text(xid: Xid) -> str:
    """Return the text after the code; the finding already contains the rest."""
    return (xid.message.partition(f"): {xid.code}, ")[2] or xid.message).rstrip(".")


def _device(node: Node, xid: Xid) -> str:
    if xid.of_switch:
        return f"NVSwitch {xid.pci_id}"
    place = f"{xid.pci_id} {xid.part}".rstrip()
    for gpu in node.nvml.gpus:
        if gpu.pci_id and xid.pci_id and gpu.pci_id.lower().endswith(xid.pci_id.lower()[-10:]):
            return f"GPU {gpu.index} {place}"
    return place


RULE = Rule(
    id="gpu.xid",
    title="Xid and SXid errors in the kernel log",
    why="An Xid is the driver's code for an error of a GPU, an SXid for one of an NVSwitch."
    " Some Xids are caused by a program (13, 31, 43), others (48, 63, 74, 79, 92, 119, 120, …)"
    " by hardware that will fail again.",
    fix="Look the number up in NVIDIA's list (https://docs.nvidia.com/deploy/xid-errors/); for"
    " hardware errors drain the node and reset or replace the GPU.",
    source="Azure/azurehpc-health-checks, also for the two hours",
    judge=each_node(_check),
    gpus_only=True,
)
