"""Network interfaces, InfiniBand ports, and the addresses of the hostname."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distrun.probe.interfaces import addresses_of_interfaces
from distrun.probe.reading import LEFT_OUT, Reading, Unread, within
from distrun.probe.snapshot import InfinibandPort, Nic

_RESOLVER_LIMIT_S = 1.5
_PEER_MEMORY_MODULES = (
    "sys/module/nvidia_peermem",
    "sys/module/nv_peer_mem",
    "sys/kernel/mm/memory_peers/nv_mem",
    "sys/kernel/mm/memory_peers/nv_mem_nc",
    "sys/module/efa_nv_peermem",
)


def hostname_addresses(hostname: str) -> tuple[str, ...]:
    """Return the addresses that the hostname resolves to; empty if it does not.

    Raises:
        Unread: The resolver is too slow.
    """
    return within(_RESOLVER_LIMIT_S, "the resolver", lambda: _resolve(hostname))


def _resolve(name: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # unknown, or not a valid name (idna codec)
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def ip_addresses() -> dict[str, tuple[str, ...]]:
    """Return the addresses of each network interface, without IPv6 addresses of one link.

    Raises:
        Unread: Another machine's Python has no psutil, and that is no Linux.
        OSError: The kernel does not tell.
    """
    try:
        import psutil
    except ImportError as error:  # where --bootstrap was needed
        if not sys.platform.startswith("linux"):
            raise Unread(str(error)) from None
        return addresses_of_interfaces()
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        name: tuple(
            a.address
            for a in addresses
            if a.family in families and not a.address.startswith("fe80:")
        )
        for name, addresses in psutil.net_if_addrs().items()
    }


def loopback_problem() -> str:
    """Return why connecting to 127.0.0.1 fails; "" if it works."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=1).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def read_nics(
    root: Path, addresses: Mapping[str, tuple[str, ...]] | None, why_none: str = LEFT_OUT
) -> tuple[Nic, ...]:
    """Return the network interfaces except the loopback.

    Args:
        root: Where /sys is.
        addresses: The addresses of each interface; None if they were not read.
        why_none: Why they were not read.

    Raises:
        OSError: The kernel does not list the interfaces.
    """
    folders = sorted((root / "sys/class/net").iterdir())
    nics = [f for f in folders if f.name != "lo" and f.is_dir()]  # bonding_masters is a file
    return tuple(_nic(folder, addresses, why_none) for folder in nics)


def _nic(folder: Path, addresses: Mapping[str, tuple[str, ...]] | None, why_none: str) -> Nic:
    nic = Reading()
    if addresses is None:
        nic.missing["addresses"] = why_none
    own = (addresses or {}).get(folder.name, ())
    ipv4 = tuple(address for address in own if ":" not in address)
    ipv6 = tuple(address for address in own if ":" in address)
    nic.take("mtu", lambda: int(_text(folder / "mtu")))
    nic.take("speed_mbps", _speed_mbps, folder)
    physical = (folder / "device").exists()
    return Nic(
        folder.name,
        _is_up(folder),
        addresses=ipv4,
        ipv6_addresses=ipv6,
        physical=physical,
        **nic.fields(),
    )


def _is_up(folder: Path) -> bool:
    """Return whether packets can flow; without a known state the carrier decides."""
    try:
        state = _text(folder / "operstate")
        return state == "up" or (state == "unknown" and _text(folder / "carrier") == "1")
    except OSError:  # the carrier cannot be read if the interface is down
        return False


def _speed_mbps(folder: Path) -> int:
    try:
        speed = int(_text(folder / "speed"))
    except OSError:  # EINVAL: down, or virtual
        raise Unread("NotSupported") from None
    if speed <= 0:
        raise Unread("NotSupported")
    return speed


def read_infiniband(root: Path) -> tuple[InfinibandPort, ...]:
    """Return the ports of InfiniBand and RoCE adapters; there may be none."""
    ports = sorted((root / "sys/class/infiniband").glob("*/ports/*"))
    return tuple(InfinibandPort(**_infiniband_port(port)) for port in ports)


def _infiniband_port(port: Path) -> dict[str, Any]:
    found = Reading()
    names = {"state": "state", "phys_state": "physical_state"}
    for name in ("state", "phys_state", "rate", "link_layer"):
        found.take(names.get(name, name), _text, port / name)
    found.take("link_downed", lambda: int(_text(port / "counters/link_downed")))
    device = port.parents[1]
    found.take("board", _text, device / "board_id")
    unknown = dict.fromkeys(("state", "physical_state", "rate", "link_layer"), "")
    return {
        "device": device.name,
        "port": int(port.name),
        "nics": tuple(sorted(nic.name for nic in (device / "device/net").glob("*"))),
        **unknown,
        **found.values,
    }


def peer_memory(root: Path) -> bool:
    """Return whether a module for GPUDirect RDMA is loaded.

    Raises:
        Unread: This system has no kernel modules.
    """
    if not sys.platform.startswith("linux"):
        raise Unread("NotSupported")
    return any((root / module).exists() for module in _PEER_MEMORY_MODULES)


def has_open_driver(root: Path) -> bool:
    """Return whether NVIDIA's kernel module is the open one, which supports DMA-BUF.

    Raises:
        OSError: The module is not loaded.
    """
    return "Open Kernel Module" in _text(root / "proc/driver/nvidia/version")


def _text(file: Path) -> str:
    return file.read_text().strip()
