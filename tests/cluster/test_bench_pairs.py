"""`--op pairs` between network namespaces, one of them behind a slow link."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from distrun.spec.bench import BenchRequest
from tests.cluster.machine import Machine, visible_paths
from tests.cluster.needs import lacking

NODES = 3
PORT = 29517  # in a namespace of its own: nobody else's

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("tc") is None, reason="needs tc (iproute2)"),
]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Machine]]:
    """Machines with a wire of its own between every two.

    A node's address, 10.77.0.1 … 3, is on an interface that leads nowhere, so that it is the
    same over each wire: gloo knows one address a rank.
    """
    if reason := lacking():
        pytest.skip(reason)
    visible = visible_paths(tmp_path)
    with ExitStack() as stack:
        machines = [
            stack.enter_context(closing(Machine(f"node{i}", tmp_path, files={}, visible=visible)))
            for i in range(NODES)
        ]
        for i, machine in enumerate(machines):
            machine.ip("link", "add", "eth0", "type", "veth", "peer", "nowhere")
            machine.ip("addr", "add", f"10.77.0.{i + 1}/32", "dev", "eth0")
            machine.ip("link", "set", "eth0", "up")
            machine.ip("link", "set", "nowhere", "up")
        for a, b in itertools.combinations(range(NODES), 2):
            end = ["name", f"to{a}", "netns", str(machines[b].pid)]
            machines[a].ip("link", "add", f"to{b}", "type", "veth", "peer", *end)
            for one, other in ((a, b), (b, a)):
                machines[one].ip("link", "set", f"to{other}", "up")
                machines[one].ip("route", "add", f"10.77.0.{other + 1}", "dev", f"to{other}")
        yield machines


def shape(a: Machine, b: int) -> None:
    """Slow down the wire between two nodes, one way."""
    slow = ["tbf", "rate", "60mbit", "burst", "64kb", "latency", "200ms"]
    a.network("tc", "qdisc", "add", "dev", f"to{b}", "root", *slow)


def pairs(nodes: list[Machine]) -> dict[str, Any]:
    """Run the program with a rank in each namespace; return what rank 0 tells of the pairs."""
    request = BenchRequest(
        ops=("pairs",), sizes=(256 * 1024,), iterations=8, warmup=2, timeout_s=60
    )
    ranks = [
        subprocess.Popen(
            node.within(sys.executable, "-m", "distrun.bench.program", request.model_dump_json()),
            env={
                **os.environ,
                "RANK": str(rank),
                "GROUP_RANK": str(rank),
                "WORLD_SIZE": str(NODES),
                "GROUP_WORLD_SIZE": str(NODES),
                "MASTER_ADDR": "10.77.0.1",
                "MASTER_PORT": str(PORT),
                "GLOO_SOCKET_IFNAME": "eth0",
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, node in enumerate(nodes)
    ]
    outputs = [rank.communicate(timeout=90)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * NODES
    told = [json.loads(line) for line in outputs[0].splitlines()]
    found: dict[str, Any]
    (found,) = (line for line in told if line["bench"] == "pairs")
    return found


def test_a_slow_node_is_named(nodes: list[Machine]) -> None:
    shape(nodes[2], 0)
    shape(nodes[2], 1)
    found = pairs(nodes)
    assert found["over"] == "node"
    suspect = found["suspects"][0]  # the slowest; on a busy machine others may seem slow too
    assert (suspect["kind"], suspect["who"]) == ("node", [2])
    assert suspect["factor"] > 2


def test_a_slow_link_between_two_nodes_is_named(nodes: list[Machine]) -> None:
    shape(nodes[0], 1)
    suspect = pairs(nodes)["suspects"][0]
    assert (suspect["kind"], suspect["who"]) == ("link", [0, 1])
