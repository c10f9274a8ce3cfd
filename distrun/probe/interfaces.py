"""Addresses of network interfaces, where Python has no psutil (Linux; netdevice(7), ipv6(7))."""

from __future__ import annotations

import array
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_SIOCGIFCONF = 0x8912
_NAME_NBYTES = 16
_REQUEST_NBYTES = struct.calcsize("16s24s" if struct.calcsize("P") == 8 else "16s16s")
_MOST_REQUESTS = 4096
_LINK_SCOPE = 0x20


def addresses_of_interfaces(root: Path = Path("/")) -> dict[str, tuple[str, ...]]:
    """Return the IPv4 and IPv6 addresses by interface, without IPv6 addresses of one link.

    Args:
        root: Where /proc is.

    Raises:
        OSError: The kernel does not tell.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, address in (*_ipv4(), *_ipv6(root / "proc/net/if_inet6")):
        found[name] = (*found.get(name, ()), address)
    return found


def _ipv4() -> list[tuple[str, str]]:
    buffer = array.array("B", bytes(_REQUEST_NBYTES * _MOST_REQUESTS))
    at, nbytes = buffer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("iP", nbytes, at)
        nbytes = struct.unpack("iP", fcntl.ioctl(any_socket, _SIOCGIFCONF, request))[0]
    return list(_requests(buffer.tobytes()[:nbytes]))


def _requests(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the name and the address of each `struct ifreq`."""
    for at in range(0, len(data), _REQUEST_NBYTES):
        name = data[at : at + _NAME_NBYTES].split(b"\0")[0]
        family_port_address = data[at + _NAME_NBYTES :]
        yield name.decode(errors="replace"), socket.inet_ntoa(family_port_address[4:8])


def _ipv6(table: Path) -> list[tuple[str, str]]:
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return []  # a kernel without IPv6
    rows = [line.split() for line in lines]
    return [
        (row[5], str(ipaddress.IPv6Address(bytes.fromhex(row[0]))))
        for row in rows
        if len(row) == 6 and int(row[3], 16) != _LINK_SCOPE
    ]
