"""`distrun check` over two nodes with a network between: what is wrong with it is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.hosts import Hosts

A, B = "n01", "n02"
pytestmark = [pytest.mark.root, pytest.mark.timeout(90)]


def check(hosts: Hosts, cwd: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "distrun", "check", "--hosts", f"{A},{B}", "--json", *words]
    result = subprocess.run(
        command, env=hosts.ssh_environ(), cwd=cwd, capture_output=True, text=True, timeout=60
    )
    assert result.stderr == ""
    report: dict[str, Any] = json.loads(result.stdout)
    assert [node["problem"] for node in report["nodes"]] == ["", ""]
    return report


def of_rule(report: dict[str, Any], rule: str) -> list[tuple[str, str]]:
    """Return the node and the text of each finding of a rule."""
    return [(f["node"], f["observed"]) for f in report["findings"] if f["id"] == rule]


def both(hosts: Hosts, name: str) -> set[str]:
    return {hosts.addresses[name], hosts.addresses6[name]}


def test_two_healthy_nodes_reach_one_another(hosts: Hosts, tmp_path: Path) -> None:
    report = check(hosts, tmp_path)
    for rule in ("nodes.reach", "nodes.mtu", "host.hostname", "host.port", "nodes.clock"):
        assert of_rule(report, rule) == []
    first, second = (node["host"] for node in report["nodes"])
    assert (first["hostname"], set(first["hostname_addresses"])) == (A, both(hosts, A))
    assert (second["hostname"], set(second["hostname_addresses"])) == (B, both(hosts, B))
    assert [len(node["reaches"]) for node in report["nodes"]] == [1, 2]


def test_a_way_that_is_blocked_is_found_and_the_way_back_is_not(
    hosts: Hosts, tmp_path: Path
) -> None:
    # b has second addresses for what it starts itself, so that answers find their way to it.
    for family, to_a, to_b, second in (
        ("-4", hosts.addresses[A], hosts.addresses[B], "10.79.0.2"),
        ("-6", hosts.addresses6[A], hosts.addresses6[B], "fd00:79::2"),
    ):
        a, b = hosts.machines[A], hosts.machines[B]
        b.ip(family, "addr", "add", second, "dev", "eth0", *["nodad"] * (family == "-6"))
        b.ip(family, "route", "add", to_a, "dev", "eth0", "src", second)
        a.ip(family, "route", "add", second, "dev", "eth0")
        a.ip(family, "route", "add", "unreachable", to_b)
    ((node, text),) = of_rule(check(hosts, tmp_path), "nodes.reach")
    assert node == A
    assert f"{A} cannot reach {B}, {B}:" in text
    assert text.endswith("no route to host")


def test_a_master_port_that_is_taken_is_found_on_the_first_node(
    hosts: Hosts, tmp_path: Path
) -> None:
    listen = f"import socket, sys; s = socket.create_server(('{hosts.addresses[A]}', 29500)); "
    code = listen + "print('up', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        hosts.machines[A].within(sys.executable, "-c", code),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout and holder.stdin
        assert holder.stdout.readline() == "up\n"
        ((node, text),) = of_rule(check(hosts, tmp_path), "host.port")
        holder.stdin.close()
    assert (node, text[:25]) == (A, "port 29500 is in use by a")
    assert of_rule(check(hosts, tmp_path, "--master-port", "29501"), "host.port") == []


def test_an_mtu_that_differs_is_found(hosts: Hosts, tmp_path: Path) -> None:
    hosts.machines[B].ip("link", "set", "eth0", "mtu", "1400")
    ((_, text),) = of_rule(check(hosts, tmp_path), "nodes.mtu")
    assert "1400" in text and "1500" in text and B in text


def test_a_hostname_that_means_the_loopback_is_found(hosts: Hosts, tmp_path: Path) -> None:
    hosts.write_hosts(B, {B: "127.0.1.1"})
    report = check(hosts, tmp_path)
    assert of_rule(report, "host.hostname") == [(B, f"{B} is 127.0.1.1")]
    assert of_rule(report, "nodes.reach") == []  # a still knows where b is


def test_a_name_that_leads_elsewhere_is_found(hosts: Hosts, tmp_path: Path) -> None:
    hosts.write_hosts(A, {B: "127.0.0.1"})
    ((node, text),) = of_rule(check(hosts, tmp_path), "nodes.reach")
    assert (node, text.endswith(": refused")) == (A, True)


def test_a_name_that_nobody_knows_is_reached_by_its_address(hosts: Hosts, tmp_path: Path) -> None:
    hosts.write_hosts(A, {B: ""})
    report = check(hosts, tmp_path)
    assert of_rule(report, "nodes.reach") == []
    assert [reach["address"] for reach in report["nodes"][0]["reaches"]] == [hosts.addresses[B]]
