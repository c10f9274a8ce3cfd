"""Snapshots for the public: nobody's name is left, and the findings are the same."""

from __future__ import annotations

import dataclasses
import json

import pytest

from distrun.api.anonymous import anonymous
from distrun.api.check import judged
from distrun.probe.snapshot import GpuProcess, Node, Reach
from distrun.spec.job import Settings
from tests.unit.checks.bases import recorded, server, with_field

NAMES = {
    "node": "ada@gpu-box-17.cluster.example",
    "hostname": "gpu-box-17.cluster.example",
    "user": "lovelace",
    "address": "203.0.113.77",
    "six": "2a00:1450:4001::77",
    "path": "/home/lovelace/very secret/runs",
    "problem": "ssh: gpu-box-17 says no to lovelace",
}


def named() -> tuple[Node, ...]:
    """Return a node where everything is somebody's."""
    nodes = (server("node0"), server("node1"))
    process = GpuProcess(7, 40 << 30, NAMES["user"], "/home/lovelace/bin/python train.py hunter2")
    reach = Reach(NAMES["node"], "node1", NAMES["address"], 29500, "gpu-box-17 refused")
    for path, value in {
        "0.name": NAMES["node"],
        "0.host.hostname": NAMES["hostname"],
        "0.host.hostname_addresses": (NAMES["address"], NAMES["six"], "127.0.1.1"),
        "0.host.nics.0.addresses": (NAMES["address"],),
        "0.host.runs_dir": NAMES["path"],
        "0.host.environ.NCCL_TOPO_FILE": "/home/lovelace/topo.xml",
        "0.host.environ.NCCL_TOKEN": "hunter2",
        "0.host.missing.xids": NAMES["problem"],
        "0.nvml.gpus.3.processes": (process,),
        "0.reaches": (reach,),
    }.items():
        nodes = with_field(nodes, path, value)
    return nodes


def test_no_name_is_left() -> None:
    text = json.dumps([dataclasses.asdict(node) for node in anonymous(named())])
    for word in ("lovelace", "gpu-box", "example", "203.0.113", "2a00", "hunter2", "very secret"):
        assert word not in text
    for word in ("node0", "user0", "192.0.2.", "2001:db8::", "127.0.1.1", "/home/user/topo.xml"):
        assert word in text


def test_what_is_wrong_is_still_found() -> None:
    def told(nodes: tuple[Node, ...]) -> list[tuple[str, int]]:
        return [(finding.id, finding.severity) for finding in judged(nodes, Settings()).findings]

    assert told(tuple(anonymous(named()))) == told(named()) != []


@pytest.mark.parametrize("name", ["a", "is", "0", "node1"])
def test_a_short_name_takes_no_letters_out_of_other_words(name: str) -> None:
    nodes = with_field((server("node0"),), "0.name", name)
    nodes = with_field(nodes, "0.host.hostname", name)
    nodes = with_field(nodes, "0.host.missing.xids", "a log that is 0 bytes long")
    (node,) = anonymous(nodes)
    assert (node.name, node.host.hostname) == ("node0", "node0")
    assert node.host.missing["xids"] == "a log that is 0 bytes long"


@pytest.mark.parametrize("name", ["healthy_8xh100", "a100_mig", "vm_without_nvml", "loopback_pair"])
def test_facts_stay_as_they_are(name: str) -> None:
    before, after = recorded(name), anonymous(recorded(name))
    assert [node.nvml for node in after] == [node.nvml for node in before]
    assert [node.software for node in after] == [node.software for node in before]
    assert [node.host.memory_total_nbytes for node in after] == [
        node.host.memory_total_nbytes for node in before
    ]
