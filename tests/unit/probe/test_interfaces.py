"""Addresses of interfaces without psutil: the same as with it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distrun.probe import network
from distrun.probe.interfaces import addresses_of_interfaces
from tests.unit.probe.tree import grow

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's ioctl")


def test_they_are_those_that_psutil_reads() -> None:
    expected = {name: set(found) for name, found in network.ip_addresses().items() if found}
    assert {n: set(found) for n, found in addresses_of_interfaces().items()} == expected


def test_without_psutil_they_are_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert "127.0.0.1" in network.ip_addresses()["lo"]


def test_addresses_of_one_link_are_left_out(tmp_path: Path) -> None:
    rows = [
        "20010db8000000000000000000000001 02 40 00 80     eth9",
        "fe80000000000000021fffe000000001 02 40 20 80     eth9",
        "a short line",
    ]
    root = grow(tmp_path, {"proc/net/if_inet6": "\n".join(rows) + "\n"})
    assert addresses_of_interfaces(root)["eth9"] == ("2001:db8::1",)


def test_a_kernel_without_ipv6_has_the_others(tmp_path: Path) -> None:
    assert addresses_of_interfaces(tmp_path)["lo"] == ("127.0.0.1",)
