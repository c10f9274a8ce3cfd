"""`--op pairs` between network namespaces, one of them behind a slow link."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from distrun.spec.bench import BenchRequest

NODES = 3
PORT = 29517  # in a namespace of its own: nobody else's

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not (shutil.which("ip") and shutil.which("tc")), reason="needs iproute2"),
]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


def in_node(node: int, *words: str) -> list[str]:
    return ["ip", "netns", "exec", f"distrun{node}", *words]


@pytest.fixture
def nodes() -> Iterator[None]:
    """Namespaces distrun0 … distrun2, with a wire of its own between every two.

    A node's address, 10.77.0.1 … 3, is on an interface that leads nowhere, so that it is the
    same over each wire: gloo knows one address a rank.
    """
    names = [f"distrun{i}" for i in range(NODES)]
    try:
        ip("netns", "add", names[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        for i, name in enumerate(names):
            if i:
                ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "nowhere")
            ip("-n", name, "addr", "add", f"10.77.0.{i + 1}/32", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "nowhere", "up")
        for a, b in itertools.combinations(range(NODES), 2):
            ip("-n", names[a], "link", "add", f"to{b}", "type", "veth")
            ip("-n", names[a], "link", "set", "veth0", "netns", names[b], "name", f"to{a}")
            for one, other in ((a, b), (b, a)):
                ip("-n", names[one], "link", "set", f"to{other}", "up")
                ip("-n", names[one], "route", "add", f"10.77.0.{other + 1}", "dev", f"to{other}")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=20)


def shape(a: int, b: int) -> None:
    """Slow down the wire between two nodes, one way."""
    slow = ["tbf", "rate", "60mbit", "burst", "64kb", "latency", "200ms"]
    words = ["tc", "qdisc", "add", "dev", f"to{b}", "root", *slow]
    subprocess.run(in_node(a, *words), check=True, capture_output=True, timeout=20)


def pairs() -> dict[str, object]:
    """Run the program with a rank in each namespace; return what rank 0 tells of the pairs."""
    request = BenchRequest(
        ops=("pairs",), sizes=(256 * 1024,), iterations=8, warmup=2, timeout_s=60
    )
    ranks = [
        subprocess.Popen(
            in_node(rank, sys.executable, "-m", "distrun.bench.program", request.model_dump_json()),
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
        for rank in range(NODES)
    ]
    outputs = [rank.communicate(timeout=90)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * NODES
    told = [json.loads(line) for line in outputs[0].splitlines()]
    (found,) = (line for line in told if line["bench"] == "pairs")
    return found


def test_a_slow_node_is_named(nodes: None) -> None:
    shape(2, 0)
    shape(2, 1)
    found = pairs()
    assert found["over"] == "node"
    suspect = found["suspects"][0]  # the slowest; on a busy machine others may seem slow too
    assert (suspect["kind"], suspect["who"]) == ("node", [2])
    assert suspect["factor"] > 2


def test_a_slow_link_between_two_nodes_is_named(nodes: None) -> None:
    shape(0, 1)
    suspect = pairs()["suspects"][0]
    assert (suspect["kind"], suspect["who"]) == ("link", [0, 1])
