"""Interfaces and InfiniBand ports, over trees as sysfs has them; names through the resolver."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from distrun.probe import network
from distrun.probe.reading import Unread
from distrun.probe.snapshot import InfinibandPort, Nic
from tests.unit.probe.tree import grow


def interface(name: str, **files: str) -> dict[str, str]:
    return {f"sys/class/net/{name}/{file}": f"{text}\n" for file, text in files.items()}


def test_every_interface_but_the_loopback_is_told(tmp_path: Path) -> None:
    root = grow(
        tmp_path,
        {
            **interface("lo", operstate="unknown", carrier="1", mtu="65536"),
            **interface("eth0", operstate="up", carrier="1", mtu="9000", speed="25000"),
            **interface("docker0", operstate="down", mtu="1500"),
            **interface("tun0", operstate="unknown", carrier="1", mtu="1400", speed="-1"),
            **interface("ppp0", operstate="unknown", carrier="0", mtu="1400", speed="0"),
            "sys/class/net/eth0/device/vendor": "0x15b3",
            "sys/class/net/bonding_masters": "bond0\n",
        },
    )
    unknown = {"speed_mbps": "NotSupported"}
    assert network.read_nics(root, {"eth0": ("10.0.0.2", "10.0.0.3")}) == (
        Nic("docker0", False, 1500, None, (), False, unknown),
        Nic("eth0", True, 9000, 25000, ("10.0.0.2", "10.0.0.3"), True),
        Nic("ppp0", False, 1400, None, (), False, unknown),
        Nic("tun0", True, 1400, None, (), False, unknown),
    )


def test_an_interface_that_goes_while_it_is_read_is_down(tmp_path: Path) -> None:
    (tmp_path / "sys/class/net/veth1").mkdir(parents=True)
    (nic,) = network.read_nics(tmp_path, {})
    assert (nic.up, nic.mtu) == (False, None)
    assert nic.missing["mtu"].endswith("mtu: No such file or directory")


def port(device: str, number: int, **files: str) -> dict[str, str]:
    folder = f"sys/class/infiniband/{device}/ports/{number}"
    return {f"{folder}/{file.replace('__', '/')}": text + "\n" for file, text in files.items()}


def test_every_port_of_every_adapter_is_told(tmp_path: Path) -> None:
    up = {"state": "4: ACTIVE", "phys_state": "5: LinkUp", "rate": "400 Gb/sec (4X NDR)"}
    root = grow(
        tmp_path,
        {
            **port("mlx5_0", 1, **up, link_layer="InfiniBand", counters__link_downed="3"),
            **port("mlx5_1", 1, state="1: DOWN", phys_state="3: Disabled"),
            "sys/class/infiniband/mlx5_0/board_id": "MT_0000000838\n",
            "sys/class/infiniband/mlx5_0/device/net/ibp24s0/mtu": "2044\n",
            "sys/class/infiniband/mlx5_0/device/net/ibp24s0f1/mtu": "2044\n",
        },
    )
    rate = up["rate"]
    assert network.read_infiniband(root) == (
        InfinibandPort(
            "mlx5_0",
            1,
            "4: ACTIVE",
            "5: LinkUp",
            rate,
            "InfiniBand",
            3,
            ("ibp24s0", "ibp24s0f1"),
            "MT_0000000838",
        ),
        InfinibandPort("mlx5_1", 1, "1: DOWN", "3: Disabled", "", ""),
    )


def test_no_infiniband_is_no_port(tmp_path: Path) -> None:
    assert network.read_infiniband(tmp_path) == ()


@pytest.mark.parametrize(
    "module",
    [
        *("module/nvidia_peermem/version", "module/efa_nv_peermem/version"),
        "kernel/mm/memory_peers/nv_mem/version",
    ],
)
def test_a_module_for_gpudirect_is_seen_where_it_is_loaded(module: str, tmp_path: Path) -> None:
    assert not network.peer_memory(tmp_path)
    assert network.peer_memory(grow(tmp_path, {f"sys/{module}": "1.3\n"}))


@pytest.mark.parametrize(
    ("words", "is_open"),
    [
        ("NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Release Build", True),
        ("NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Feb 20 22:21:08 UTC 2024", False),
    ],
)
def test_the_kernel_module_says_which_of_the_two_it_is(
    words: str, is_open: bool, tmp_path: Path
) -> None:
    grow(tmp_path, {"proc/driver/nvidia/version": f"NVRM version: {words}\nGCC version: 13\n"})
    assert network.has_open_driver(tmp_path) is is_open


def test_without_the_kernel_module_nobody_knows_which_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        network.has_open_driver(tmp_path)


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b", "x" * 80])
def test_a_name_that_does_not_resolve_has_no_address(name: str) -> None:
    assert network.hostname_addresses(name) == ()


def test_a_name_has_each_address_once() -> None:
    found = network.hostname_addresses("localhost")
    assert {"127.0.0.1", "::1"} & set(found)
    assert len(found) == len(set(found))


def test_a_resolver_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as deaf, socket.socket() as caller:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        caller.connect(deaf.getsockname())
        monkeypatch.setattr(network, "_RESOLVER_LIMIT_S", 0.1)
        monkeypatch.setattr(network, "_resolve", lambda name: caller.recv(1))
        with pytest.raises(Unread, match=r"the resolver did not answer within 0\.1 s"):
            network.hostname_addresses("slow")
        deaf.accept()[0].close()  # and the thread ends


def test_addresses_of_this_machine_are_by_interface() -> None:
    assert "127.0.0.1" in {a for found in network.ip_addresses().values() for a in found}


def test_a_loopback_that_is_up_has_no_problem() -> None:
    assert network.loopback_problem() == ""
