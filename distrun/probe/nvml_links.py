"""Reads connections between GPUs with NVML: NVLinks, the fabric, PCIe and P2P."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

from distrun.probe.nvml_call import Failure, NvmlReading, pci_id

_MAX_LINKS = 36
_REMOTE_TYPES = {0: "gpu", 1: "npu", 2: "switch"}
_REMOTE: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("nvmlDeviceGetNvLinkRemotePciInfo", "remote_pci_id", pci_id),
    ("nvmlDeviceGetNvLinkRemoteDeviceType", "remote_type", lambda k: _REMOTE_TYPES.get(k, "")),
)
"""Each call, the field that it fills, and the converter."""
_COUNTERS = {
    "receive_errors": 208,
    "link_recovery_failed": 214,
    "link_recovery": 215,
    "effective_errors": 219,
    "retry_blocks": 295,
}
"""Counter -> its field id (NVML_FI_DEV_NVLINK_…); older pynvml lacks the names."""
_OLD_COUNTERS = {"replay": 0, "recovery": 1, "crc_flit": 2}
"""Counter -> its number in the call of older drivers without those fields."""
_FABRIC_V2, _FABRIC_V3 = 0x02000024, 0x03000028
_FABRIC = (
    *("fabric_state", "fabric_status", "fabric_clique_id", "fabric_cluster_uuid"),
    *("fabric_health_mask", "fabric_health_summary"),
)
_READ, _WRITE, _NVLINK = 0, 1, 2  # pynvml's constant for the first is a tuple by mistake


def read_nvlinks(gpu: NvmlReading, handle: Any) -> None:
    """Read every NVLink of a GPU; no links give an empty list, not a missing field."""
    links: list[dict[str, Any]] = []
    for number in range(_MAX_LINKS):
        try:
            active = bool(gpu.call("nvmlDeviceGetNvLinkState", handle, number))
        except Failure as failure:
            if str(failure) in ("InvalidArgument", "NotSupported"):
                break  # that was the last one
            gpu.missing["nvlinks"] = str(failure)
            return
        links.append(_link(gpu, handle, number, active))
    gpu.values["nvlinks"] = links


def _link(gpu: NvmlReading, handle: Any, number: int, active: bool) -> dict[str, Any]:
    link = {"link": number, "active": active, "errors": _errors(gpu, handle, number)}
    if active:  # the remote end of an inactive link is unknown
        for name, field, convert in _REMOTE:
            try:
                link[field] = convert(gpu.call(name, handle, number))
            except Failure:  # switches are hidden in a virtual machine
                continue
    return link


def _errors(gpu: NvmlReading, handle: Any, number: int) -> dict[str, int]:
    found: dict[str, int | str] = {}
    try:
        values = gpu.field_values(handle, *_COUNTERS.values(), scope=number)
        found.update(zip(_COUNTERS, values, strict=True))
    except Failure:
        pass  # the driver lacks the call: try the older one
    if not any(isinstance(value, int) for value in found.values()):
        for name, counter in _OLD_COUNTERS.items():
            try:
                found[name] = gpu.call("nvmlDeviceGetNvLinkErrorCounter", handle, number, counter)
            except Failure:
                continue
    return {name: value for name, value in found.items() if isinstance(value, int)}


class _FabricInfo(ctypes.Structure):
    """nvmlGpuFabricInfo_v3_t; version 2 is the same without its last field.

    pynvml's own definition differs between releases.
    """

    _fields_ = (
        ("version", ctypes.c_uint),
        ("cluster_uuid", ctypes.c_ubyte * 16),
        ("status", ctypes.c_uint),
        ("clique_id", ctypes.c_uint),
        ("state", ctypes.c_uint),
        ("health_mask", ctypes.c_uint),
        ("health_summary", ctypes.c_ubyte),
    )


def read_fabric(gpu: NvmlReading, handle: Any) -> None:
    """Read the fabric state of a GPU behind NVSwitches."""
    gpu.take(_FABRIC, _fabric, gpu, handle)
    if gpu.values.get("fabric_health_summary", 0) is None:
        gpu.missing["fabric_health_summary"] = "FunctionNotFound"


def _fabric(gpu: NvmlReading, handle: Any) -> tuple[Any, ...]:
    name = "nvmlDeviceGetGpuFabricInfoV"
    info, summary = _FabricInfo(version=_FABRIC_V3), True
    try:
        gpu.call(name, handle, ctypes.byref(info))
    except Failure:  # an older driver
        info, summary = _FabricInfo(version=_FABRIC_V2), False
        gpu.call(name, handle, ctypes.byref(info))
    uuid = bytes(info.cluster_uuid).hex()
    health = (info.health_mask, info.health_summary if summary else None)
    return info.state, info.status, info.clique_id, uuid, *health


def read_pair(pair: NvmlReading, a: Any, b: Any) -> None:
    """Read the connection of two GPUs."""
    pair.ask("nvmlDeviceGetTopologyCommonAncestor", a, b, topology=int)
    pair.ask("nvmlDeviceGetP2PStatus", a, b, _READ, p2p_read=int)
    pair.ask("nvmlDeviceGetP2PStatus", a, b, _WRITE, p2p_write=int)
    pair.ask("nvmlDeviceGetP2PStatus", a, b, _NVLINK, p2p_nvlink=int)


def links_between(a: Mapping[str, Any], b: Mapping[str, Any], p2p_nvlink: int | None) -> int:
    """Return the active NVLinks between two GPUs, direct or through switches.

    Args:
        a: Fields of one GPU.
        b: Fields of the other GPU.
        p2p_nvlink: 0 if NVML reports NVLink between them: links with a hidden end then lead to
            switches, as NCCL assumes too.
    """
    direct = min(_links(a, remote_pci_id=b.get("pci_id")), _links(b, remote_pci_id=a.get("pci_id")))
    if direct:
        return direct
    ends = ("switch", "") if p2p_nvlink == 0 else ("switch",)
    return min(sum(_links(gpu, remote_type=end) for end in ends) for gpu in (a, b))


def _links(gpu: Mapping[str, Any], **remote: str | None) -> int:
    ((field, value),) = remote.items()
    links = gpu.get("nvlinks", ())
    return sum(link["active"] and link.get(field, "") == value for link in links)
