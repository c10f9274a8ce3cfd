"""How the nodes of a job reach one another, from what their probes have read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distrun.errors import MachineError, NodesMissing, UsageError
from distrun.nodes.reach import addresses_of, interface_of
from distrun.probe.node import read_node
from distrun.probe.snapshot import Host, Nic, Node, Reach, Software
from distrun.schedulers import site, ssh
from distrun.schedulers.place import Place
from distrun.spec import read
from distrun.spec.job import Job


def node(name: str, *nics: Nic, reaches: tuple[Reach, ...] = (), problem: str = "") -> Node:
    host = Host(hostname=f"{name}.lan", nics=nics)
    found = read_node(name, want_gpus=False, quick=True)
    return replace(found, host=host, software=Software(), reaches=reaches, problem=problem)


def eth(address: str, name: str = "eth0", ipv6: str = "", up: bool = True) -> Nic:
    return Nic(name, up, addresses=(address,), ipv6_addresses=(ipv6,) if ipv6 else ())


def reach(source: str, target: str, ends: tuple[str, str], problem: str = "") -> Reach:
    return Reach(source, target, ends[1], 40000, problem, *ends)


def job(**fields: Any) -> Job:
    return read.validated(Job, {"script": "train.py", **fields}, "flag")


PLACES = {name: Place(name, name) for name in "abc"}


def test_the_head_has_the_address_by_which_most_have_reached_it() -> None:
    nodes = [
        node("a"),
        node("b", reaches=(reach("b", "a", ("10.0.0.2", "10.0.0.1")),)),
        node(
            "c",
            reaches=(
                reach("c", "b", ("9.9.9.9", "9.9.9.8")),
                reach("c", "a", ("10.0.0.3", "10.0.0.1")),
            ),
        ),
    ]
    assert site._routes(nodes, PLACES) == {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"}


def test_an_address_that_the_user_names_stands() -> None:
    nodes = [node("a"), node("b", reaches=(reach("b", "a", ("10.0.0.2", "10.0.0.1")),))]
    places = {"a": Place("a", "a", address="192.0.2.1"), "b": Place("b", "b", address="192.0.2.2")}
    assert site._routes(nodes, places) == {"a": "192.0.2.1", "b": "192.0.2.2"}


def test_one_node_speaks_to_itself_alone() -> None:
    assert site._routes([node("a")], PLACES) == {"a": "127.0.0.1"}
    assert interface_of(node("a"), "127.0.0.1") == "lo"


@pytest.mark.parametrize(
    ("reaches", "said"),
    [
        ((reach("b", "a", ("", "10.0.0.1"), "timed out"),), "10.0.0.1: timed out"),
        ((), "its probe ended"),
    ],
)
def test_a_node_that_cannot_reach_the_head_is_named(reaches: tuple[Reach, ...], said: str) -> None:
    with pytest.raises(NodesMissing) as missing:
        site._routes([node("a"), node("b", reaches=reaches)], PLACES)
    assert missing.value.message == f"b cannot connect to a, the first node: {said}"
    assert missing.value.exit_code == 4


def test_names_are_tried_before_addresses_and_those_of_bridges_never() -> None:
    bridge = eth("172.17.0.1", "docker0")
    a = node(
        "root@a:2222", eth("10.0.0.1", ipv6="fd00::1"), bridge, eth("10.9.9.9", "eth9", up=False)
    )
    b = node("b", eth("10.0.0.2"), bridge)
    place = Place("root@a:2222", "root@a")
    found = site._addresses(place, a, [a, b], None)
    assert found == ("a", "root@a:2222.lan", "10.0.0.1", "fd00::1")
    assert addresses_of(b, [a, b]) == ("b", "b.lan", "10.0.0.2")


def test_an_interface_gives_its_own_addresses_or_is_refused_by_name() -> None:
    two = node("a", eth("10.0.0.1"), eth("192.168.0.1", "ib0", ipv6="fd00::1"))
    assert site._addresses(PLACES["a"], two, [two], "ib0") == ("192.168.0.1", "fd00::1")
    with pytest.raises(MachineError) as refused:
        site._addresses(PLACES["a"], two, [two], "ib1")
    assert refused.value.message == "--interface ib1 has no address on a"
    assert refused.value.hint == "its interfaces: eth0, ib0"


def test_the_interface_is_the_one_with_the_address() -> None:
    two = node("a", eth("10.0.0.1"), eth("192.168.0.1", "ib0", ipv6="fd00::1"))
    assert [interface_of(two, each) for each in ("fd00::1", "10.0.0.1", "192.0.2.9")] == [
        *("ib0", "eth0", "")
    ]


@pytest.mark.parametrize(("nodes", "wanted"), [(None, "abc"), ("2", "ab"), ("2:3", "abc")])
def test_the_first_hosts_become_nodes(nodes: str | None, wanted: str) -> None:
    fields = {} if nodes is None else {"nodes": nodes}
    assert "".join(site._wanted(job(**fields), list("abc"))) == wanted


def test_more_nodes_than_hosts_are_refused() -> None:
    with pytest.raises(UsageError) as refused:
        site._wanted(job(nodes=4), list("abc"))
    assert refused.value.message == "--nodes 4 is more than the hosts that are named: 3"


@pytest.mark.parametrize(
    ("nodes", "lost", "kept"), [("3", 0, 3), ("3", 1, None), ("2:3", 1, 2), ("2:3", 2, None)]
)
def test_hosts_that_cannot_be_reached_are_left_out_only_of_an_elastic_job(
    nodes: str, lost: int, kept: int | None
) -> None:
    found = [
        node(name, problem="Connection refused" if i < lost else "") for i, name in enumerate("abc")
    ]
    told: list[str] = []
    wanted = job(nodes=nodes, hosts="a,b,c")
    if kept is None:
        with pytest.raises(NodesMissing) as missing:
            site._reached(wanted, found, PLACES, ssh, told.append)
        names = ", ".join("abc"[:lost])
        assert missing.value.message == f"{lost} of 3 nodes cannot be reached: {names}"
        assert told[:2] == [
            "a: not reached: Connection refused",
            "  is sshd running on a? HOST:PORT names another port, or [ADDRESS]:PORT of IPv6",
        ]
    else:
        assert len(site._reached(wanted, found, PLACES, ssh, told.append)) == kept
        assert told == [f"{name} is left out: Connection refused" for name in "abc"[:lost]]
