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
    for word in ("node0", "user0", "192.0.2.", "2001:db8::", "127.0.1.1", "***/topo.xml"):
        assert word in text


SSH = {
    "alice@node1.internal.acme.com: Permission denied ": "user@node1: Permission denied",
    "ada@gpu-box-17.cluster.example: Permission denied": "node0: Permission denied",
    "bob@gpu-box-17: Permission denied": "user@node0: Permission denied",
    "ssh: connect to host 10.20.30.40 port 22: No route to host": "connect to host 192.0.2.0 port",
    "ssh: connect to host fe80::99%eth0 port 22: refused": "connect to host 2001:db8:: port 22",
    "Connection closed by 2a00:99::1: bye": "closed by 2001:db8::: bye",
    "no ssh to carol@login.acme.com": "no ssh to user@host",
    "[2a00:99::1]:5000 and 2a00:99::1:29500": "[2001:db8::]:5000 and 2001:db8::",
    "ssh: connect to host prod-head port 22: refused": "connect to host host port 22",
    "ssh: Could not resolve hostname prod-head: Name": "resolve hostname host: Name",
    "srun: error: x.prod-head.acme.com: task 0": "srun: error: host: task 0",
    "Connection to gpu-box-17.acme closed.": "Connection to node0 closed.",
    "/scratch/acme corp/x y/python: not found": "***: not found",
    "sh: 1: exec: /opt/acme/env/python3: not found": "sh: 1: exec: ***: not found",
    "sh: (/data/acme/topo.xml) '/data/acme/x'": "sh: (***/topo.xml) '***'",
    "/dev/kmsg: Permission denied": "/dev/kmsg: Permission denied",
    "/dev/../data/acme: no": "***: no",
    "No module named 'distrun.probe.nvml'": "No module named 'distrun.probe.nvml'",
    "127.0.0.1 and ::1 and 0.0.0.0 at 12:30:45": "127.0.0.1 and ::1 and 0.0.0.0 at 12:30:45",
}
PRIVATE = ("alice", "bob", "acme", "10.20", "99", "prod-head", "gpu-box", "scratch")


@pytest.mark.parametrize("said", SSH)
def test_a_message_names_nobody_whom_no_fact_names_either(said: str) -> None:
    (node, _) = anonymous(with_field(named(), "0.problem", said))
    assert SSH[said] in node.problem
    assert not [word for word in PRIVATE if word in node.problem]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("NCCL_COMM_ID", "10.9.8.7:5000", "***"),
        ("NCCL_HOSTID", "prod-head-17", "***"),
        ("TORCH_HOME", "/scratch/alice/torch", "***"),
        ("TORCH_HOME", "../alice/torch", "***"),
        ("TORCH_HOME", "/home/alice", "***"),
        ("NCCL_CONF_FILE", "/data/acme-secret/my own/nccl.conf", "***/nccl.conf"),
        ("NCCL_TOPO_FILE", "/data/acme-secret/topo.xml", "***/topo.xml"),
        ("NCCL_DEBUG_FILE", "/data/acme-secret/%h.%p.log", "***"),
        ("CUDA_X", "a=/data/acme:/home/alice/b;/usr/lib/x.so", "a=***:***;/usr/lib/x.so"),
        ("NCCL_X", "http://prod-head.acme.com:80/x", "http:***:***"),
        ("NCCL_SOCKET_IFNAME", "=eth0,^docker", "=eth0,^docker"),
        ("NCCL_IB_HCA", "mlx5_0:1,mlx5_1:1", "mlx5_0:1,mlx5_1:1"),
    ],
)
def test_a_variable_names_nobody(name: str, value: str, shown: str) -> None:
    (node, _) = anonymous(with_field(named(), f"0.host.environ.{name}", value))
    assert node.host.environ[name] == shown


def test_the_callers_own_login_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    text = "no quota for ada, (ada) or ada-2; adagio plays"
    (node, _) = anonymous(with_field(named(), "0.host.missing.xids", text))
    assert node.host.missing["xids"] == "no quota for user, (user) or user-2; adagio plays"


@pytest.mark.parametrize("path", ["/data/acme", "acme", "/data/acme/", "/home/x/runs", "runs", ""])
def test_a_run_directory_is_named_if_it_has_the_usual_name(path: str) -> None:
    (node, _) = anonymous(with_field(named(), "0.host.runs_dir", path))
    assert node.host.runs_dir == (path and ("runs" if path.endswith("runs") else "***"))


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
