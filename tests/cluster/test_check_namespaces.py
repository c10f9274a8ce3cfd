"""`distrun check` over two nodes with a network between: what is wrong with it is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.two_nodes import ADDRESSES, NAMES, hosts, ip, needs_namespaces, two_nodes

A, B = NAMES
pytestmark = [*needs_namespaces, pytest.mark.timeout(90)]


@pytest.fixture
def nodes() -> Iterator[None]:
    """Two nodes that a stand-in for ssh leads to."""
    with two_nodes():
        yield


@pytest.fixture
def checked(nodes: None, tmp_path: Path) -> dict[str, str]:
    """An environment whose ssh goes into the node that it names."""
    ssh = tmp_path / "ssh"
    ssh.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != -- ]; do shift; done\n'
        'exec ip netns exec "$2" unshare --uts sh -c "hostname $2; $3"\n'
    )
    ssh.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def check(environ: dict[str, str], cwd: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "distrun", "check", "--hosts", f"{A},{B}", "--json", *words]
    result = subprocess.run(
        command, env=environ, cwd=cwd, capture_output=True, text=True, timeout=60
    )
    assert result.stderr == ""
    report: dict[str, Any] = json.loads(result.stdout)
    assert [node["problem"] for node in report["nodes"]] == ["", ""]
    return report


def of_rule(report: dict[str, Any], rule: str) -> list[tuple[str, str]]:
    """Return the node and the text of each finding of a rule."""
    return [(f["node"], f["observed"]) for f in report["findings"] if f["id"] == rule]


def test_two_healthy_nodes_reach_one_another(checked: dict[str, str], tmp_path: Path) -> None:
    report = check(checked, tmp_path)
    for rule in ("nodes.reach", "nodes.mtu", "host.hostname", "host.port", "nodes.clock"):
        assert of_rule(report, rule) == []
    first, second = (node["host"] for node in report["nodes"])
    assert (first["hostname"], first["hostname_addresses"]) == (A, [ADDRESSES[0]])
    assert (second["hostname"], second["hostname_addresses"]) == (B, [ADDRESSES[1]])
    assert [len(node["reaches"]) for node in report["nodes"]] == [1, 2]


def test_a_way_that_is_blocked_is_found_and_the_way_back_is_not(
    checked: dict[str, str], tmp_path: Path
) -> None:
    # b has a second address for what it starts itself, so that answers find their way to it.
    ip("-n", B, "addr", "add", "10.79.0.2/24", "dev", "eth0")
    ip("-n", B, "route", "add", ADDRESSES[0], "dev", "eth0", "src", "10.79.0.2")
    ip("-n", A, "route", "add", "10.79.0.0/24", "dev", "eth0")
    ip("-n", A, "route", "add", "unreachable", ADDRESSES[1])
    ((node, text),) = of_rule(check(checked, tmp_path), "nodes.reach")
    assert node == A
    assert f"{A} cannot reach {B}, {B}:" in text
    assert text.endswith("no route to host")


def test_a_master_port_that_is_taken_is_found_on_the_first_node(
    checked: dict[str, str], tmp_path: Path
) -> None:
    listen = f"import socket, sys; s = socket.create_server(('{ADDRESSES[0]}', 29500)); "
    code = listen + "print('up', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        ["ip", "netns", "exec", A, sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout and holder.stdin
        assert holder.stdout.readline() == "up\n"
        ((node, text),) = of_rule(check(checked, tmp_path), "host.port")
        holder.stdin.close()
    assert (node, text[:25]) == (A, "port 29500 is in use by a")
    assert of_rule(check(checked, tmp_path, "--master-port", "29501"), "host.port") == []


def test_an_mtu_that_differs_is_found(checked: dict[str, str], tmp_path: Path) -> None:
    ip("-n", B, "link", "set", "eth0", "mtu", "1400")
    ((_, text),) = of_rule(check(checked, tmp_path), "nodes.mtu")
    assert "1400" in text and "1500" in text and B in text


def test_a_hostname_that_means_the_loopback_is_found(
    checked: dict[str, str], tmp_path: Path
) -> None:
    hosts(B, distrun_b="127.0.1.1")
    report = check(checked, tmp_path)
    assert of_rule(report, "host.hostname") == [(B, f"{B} is 127.0.1.1")]
    assert of_rule(report, "nodes.reach") == []  # a still knows where b is


def test_a_name_that_leads_elsewhere_is_found(checked: dict[str, str], tmp_path: Path) -> None:
    hosts(A, distrun_b="127.0.0.1")
    ((node, text),) = of_rule(check(checked, tmp_path), "nodes.reach")
    assert (node, text.endswith(": refused")) == (A, True)


def test_a_name_that_nobody_knows_is_reached_by_its_address(
    checked: dict[str, str], tmp_path: Path
) -> None:
    hosts(A, distrun_b="10.78.0.9")
    text = Path(f"/etc/netns/{A}/hosts").read_text()
    Path(f"/etc/netns/{A}/hosts").write_text(text.replace(f"10.78.0.9 {B}\n", ""))
    report = check(checked, tmp_path)
    assert of_rule(report, "nodes.reach") == []
    assert [reach["address"] for reach in report["nodes"][0]["reaches"]] == [ADDRESSES[1]]
