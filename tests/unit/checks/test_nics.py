"""Which interfaces *_SOCKET_IFNAME means, and over which ones a job talks."""

from __future__ import annotations

import pytest

from distrun.checks.nics import chosen_names, data_nics
from distrun.probe.snapshot import Host, Nic

NAMES = ("eth0", "eth1", "ib0", "docker0", "lo")


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        ("eth", ["eth0", "eth1"]),
        ("eth0", ["eth0"]),
        ("eth,ib", ["eth0", "eth1", "ib0"]),
        ("=eth", []),
        ("=eth0", ["eth0"]),
        ("=eth0,ib0", ["eth0", "ib0"]),
        ("^docker,lo", ["eth0", "eth1", "ib0"]),
        ("^=eth0,lo", ["eth1", "ib0", "docker0"]),
        ("mlx", []),
        (" ib0 ,", ["ib0"]),
        (",", []),
    ],
)
def test_nccl_takes_prefixes_whole_names_and_what_to_leave_out(
    value: str, chosen: list[str]
) -> None:
    assert chosen_names("NCCL_SOCKET_IFNAME", value, NAMES) == chosen


@pytest.mark.parametrize(
    ("value", "chosen"), [("eth", []), ("eth0", ["eth0"]), ("ib0,eth1", ["eth1", "ib0"])]
)
def test_gloo_takes_whole_names(value: str, chosen: list[str]) -> None:
    assert chosen_names("GLOO_SOCKET_IFNAME", value, NAMES) == chosen


def nic(name: str, speed: int | None = None, *, up: bool = True, address: str = "10.0.0.1") -> Nic:
    return Nic(name, up, 1500, speed, (address,) if address else ())


@pytest.mark.parametrize(
    ("nics", "chosen"),
    [
        ((), []),
        ((nic("eth0"),), ["eth0"]),
        ((nic("eth0", 1000), nic("eth1", 25_000)), ["eth1"]),
        ((nic("eth0", 25_000), nic("eth1", 25_000)), ["eth0", "eth1"]),
        ((nic("eth0", 25_000, up=False), nic("eth1", 1000)), ["eth1"]),
        ((nic("eth0", 1000), nic("eth1", 25_000, address="")), ["eth0"]),
        ((nic("docker0", 10_000), nic("eth0")), ["eth0"]),
        ((nic("br-1f2e", 10_000),), []),
    ],
)
def test_a_job_talks_over_the_fastest_interfaces_that_have_an_address(
    nics: tuple[Nic, ...], chosen: list[str]
) -> None:
    assert [nic.name for nic in data_nics(Host(nics=nics))] == chosen


@pytest.mark.parametrize("variable", ["NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"])
def test_an_interface_that_is_named_comes_before_a_faster_one(variable: str) -> None:
    nics = (nic("eth0", 1000), nic("eth1", 25_000))
    assert data_nics(Host(nics=nics, environ={variable: "eth0"})) == nics[:1]
    assert data_nics(Host(nics=nics, environ={variable: "none"})) == nics[1:]


def test_a_device_comes_before_what_has_none() -> None:
    real, bond = Nic("eth0", True, addresses=("10.0.0.1",), physical=True), nic("team0", 50_000)
    assert data_nics(Host(nics=(real, bond))) == (real,)
