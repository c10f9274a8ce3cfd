"""The addresses of a job of which this machine is one node."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import pytest

from distrun.errors import MachineError
from distrun.plan.site import Site
from distrun.probe.snapshot import Host, Nic
from distrun.schedulers import own_site
from distrun.schedulers.place import OwnNode
from distrun.spec import read
from distrun.spec.job import Job
from tests.unit.machines import machine

SOURCES = dict.fromkeys(("nodes", "node_rank", "rdzv_id"), "X") | {
    "master_addr": "PET_MASTER_ADDR",
    "master_port": "PET_MASTER_PORT",
}


def node(**changes: Any) -> OwnNode:
    return replace(OwnNode("Kubeflow", 3, 1, "127.0.0.1", 0, "id", (), SOURCES), **changes)


def site(
    own: OwnNode, *, starts: bool = True, told: list[str] | None = None, **fields: Any
) -> Site:
    job = read.validated(Job, {"script": "train.py", **fields}, "flag")
    nic = Nic("eth7", True, addresses=("10.9.9.5",), ipv6_addresses=("fd09::5",))
    snapshot = replace(machine().head.node, host=Host(nics=(nic,)))
    tell = [].append if told is None else told.append
    return own_site.site_of(own, job, snapshot, tell, starts=starts)


def test_a_node_knows_the_head_and_itself() -> None:
    found = site(node())
    assert [m.address for m in found.machines] == ["127.0.0.1", "127.0.0.1", ""]
    assert [m.host for m in found.machines] == ["node0", "node1", "node2"]
    assert (found.own_node, found.rdzv_id, found.emulated) == (1, "id", False)
    assert found.machines[1].interface in ("lo", "lo0")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_list_of_addresses_names_the_interface(rank: int) -> None:
    addresses = ("10.9.9.5", "10.9.9.5", "10.9.9.6")
    found = site(node(addresses=addresses, rank=rank, head="10.9.9.5"))
    assert tuple(m.address for m in found.machines) == addresses
    assert found.machines[rank].interface == "eth7"


def test_an_interface_of_the_user_has_priority() -> None:
    assert site(node(), interface="ib0").machines[1].interface == "ib0"


def test_a_head_that_does_not_resolve_is_waited_for_and_then_refused() -> None:
    told: list[str] = []
    with pytest.raises(MachineError, match=r"PET_MASTER_ADDR='nobody.invalid' did not resolve"):
        site(node(head="nobody.invalid"), told=told, join_timeout="0.2")
    assert told == ["waiting for the name of node 0, nobody.invalid, to resolve"]


def test_a_name_that_resolves_later_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def late(name: str, *rest: Any, **more: Any) -> Any:
        asked.append(name)
        if name == "head.svc" and len(asked) < 3:
            raise socket.gaierror(-2, "Name or service not known")
        return real("127.0.0.1" if name == "head.svc" else name, *rest, **more)

    monkeypatch.setattr(own_site, "_RETRY_S", 0.01)
    monkeypatch.setattr(socket, "getaddrinfo", late)
    assert site(node(head="head.svc")).machines[0].address == "127.0.0.1"


def test_a_printed_line_keeps_a_name_that_is_unknown_here() -> None:
    found = site(node(head="nobody.invalid"), starts=False)
    assert found.machines[0].address == "nobody.invalid"


def test_the_head_refuses_a_port_in_use_and_others_do_not_care() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        site(node(port=port))
        with pytest.raises(MachineError, match=rf"port {port} \(PET_MASTER_PORT\) is in use"):
            site(node(port=port, rank=0))
        site(node(port=port, rank=0), starts=False)


def test_the_heads_own_name_in_etc_hosts_is_not_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(own_site, "_source", lambda _: "10.9.9.5")
    found_site = site(node(head="train-0", rank=0))
    assert found_site.machines[0].address == "10.9.9.5"
    assert found_site.machines[0].interface == "eth7"
