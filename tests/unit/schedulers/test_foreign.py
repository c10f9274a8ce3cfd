"""What the variables of other platforms say of this node, and which values are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from distrun.errors import UsageError
from distrun.schedulers import foreign
from distrun.schedulers.place import OwnNode
from distrun.schedulers.platforms import PLATFORMS, host_and_port
from distrun.spec import read
from distrun.spec.fields import NodeRange
from distrun.spec.job import Job

PET = {
    "PET_NNODES": "4",
    "PET_NODE_RANK": "1",
    "PET_MASTER_ADDR": "train-node-0-0.train",
    "PET_MASTER_PORT": "29400",
}
SKY = {
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5",
    "SKYPILOT_TASK_ID": "sky-2026-01-31-23-59-59-123456_mycluster_1",
}
DSTACK = {
    "DSTACK_NODES_NUM": "3",
    "DSTACK_NODE_RANK": "2",
    "DSTACK_MASTER_NODE_IP": "10.0.0.4",
    "DSTACK_NODES_IPS": "10.0.0.4\n10.0.0.5\n10.0.0.6",
    "DSTACK_RUN_ID": "7d0e3f5c",
}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
    "PMIX_NAMESPACE": "prterun-a-77@1",
    "MASTER_ADDR": "a",
}
OURS = {"DISTRUN_NNODES": "4", "DISTRUN_NODE_RANK": "3", "DISTRUN_HEAD": "node0"}
POD = {"JOB_COMPLETION_INDEX": "3", "MASTER_ADDR": "train-0.svc"}


def applied(
    environ: Mapping[str, str], source: str = "flag", **fields: Any
) -> tuple[Job, dict[str, str], OwnNode | None]:
    job = read.validated(Job, {"script": "train.py", **fields}, "flag")
    return foreign.applied(job, dict.fromkeys(fields, source), environ)


def node_of(environ: Mapping[str, str], **fields: Any) -> OwnNode:
    own = applied(environ, **fields)[2]
    assert own is not None
    return own


def refusal(environ: Mapping[str, str], **fields: Any) -> UsageError:
    with pytest.raises(UsageError) as refused:
        applied(environ, **fields)
    assert "\n" not in refused.value.message and refused.value.hint
    return refused.value


@pytest.mark.parametrize(
    ("environ", "fields", "expected"),
    [
        (PET, {}, (4, 1, "train-node-0-0.train", 29400, "train-node-0-0.train:29400")),
        ({**PET, "PET_RDZV_ID": " my job "}, {}, (4, 1, PET["PET_MASTER_ADDR"], 29400, "my-job")),
        (
            {"PET_NNODES": "2:2", "PET_NODE_RANK": "0", "PET_RDZV_ENDPOINT": "[fd00::1]:31000"},
            {},
            (2, 0, "fd00::1", 31000, "fd00::1:31000"),
        ),
        (SKY, {}, (2, 1, "10.0.0.4", 29500, SKY["SKYPILOT_TASK_ID"])),
        (DSTACK, {}, (3, 2, "10.0.0.4", 29500, "7d0e3f5c")),
        (MPI, {}, (2, 0, "a", 29500, "prterun-a-77-1")),
        (POD, {"nodes": "4"}, (4, 3, "train-0.svc", 29500, "train-0.svc:29500")),
    ],
    ids=["pet", "pet-rdzv-id", "pet-endpoint", "skypilot", "dstack", "openmpi", "indexed-job"],
)
def test_each_platform_says_which_node_this_is(
    environ: Mapping[str, str], fields: dict[str, Any], expected: tuple[object, ...]
) -> None:
    job, _, own = applied(environ, **fields)
    assert own is not None
    assert (own.count, own.rank, own.head, own.port, own.rdzv_id) == expected
    assert (job.nodes.min, job.nodes.max, job.master_port) == (own.count, own.count, own.port)


def test_every_choice_names_its_variable() -> None:
    _, sources, own = applied({**PET, "PET_NPROC_PER_NODE": "8"})
    assert own is not None
    assert sources == {
        "nodes": "PET_NNODES",
        "node_rank": "PET_NODE_RANK",
        "master_addr": "PET_MASTER_ADDR",
        "master_port": "PET_MASTER_PORT",
        "rdzv_id": "PET_MASTER_ADDR",
        "nproc_per_node": "PET_NPROC_PER_NODE",
    }
    assert "  node rank 1 (PET_NODE_RANK)" in own.lines()


def test_a_list_of_addresses_is_in_the_order_of_the_nodes() -> None:
    assert node_of(SKY).addresses == ("10.0.0.4", "10.0.0.5")
    assert node_of(DSTACK).addresses == ("10.0.0.4", "10.0.0.5", "10.0.0.6")
    assert node_of(PET).addresses == ()


def test_every_platform_is_documented() -> None:
    ours, *others = PLATFORMS
    assert (Path(__file__).parents[3] / ours.source).exists()
    assert all(platform.source.startswith("https://") for platform in others)


@pytest.mark.parametrize(
    ("environ", "fields"),
    [
        ({}, {}),
        ({**PET, "PET_NNODES": "1"}, {}),
        ({**PET, "PET_NNODES": "1:1"}, {}),
        ({**PET, "PET_NNODES": ""}, {}),
        ({**MPI, "OMPI_COMM_WORLD_SIZE": "1"}, {}),
        ({"PET_NODE_RANK": "1"}, {}),
        (POD, {}),  # pods of a sweep
        (POD, {"nodes": "1"}),
        (PET, {"on": "local"}),
        (PET, {"hosts": "a,b"}),
        ({**PET, "PET_NNODES": "abc"}, {"on": "local"}),
    ],
)
def test_one_node_hosts_and_on_are_launched_as_without_a_platform(
    environ: Mapping[str, str], fields: dict[str, Any]
) -> None:
    job, sources, own = applied(environ, **fields)
    assert own is None and set(sources) == set(fields)
    assert job.nodes.max == int(fields.get("nodes", 1))


@pytest.mark.parametrize(
    ("value", "source", "given", "expected"),
    [
        ("8", "flag", {}, 8),
        ("auto", "flag", {}, "auto"),
        ("gpu", "flag", {}, "gpu"),
        ("8", "flag", {"nproc_per_node": 2}, 2),
        ("8", "config file x.toml", {"nproc_per_node": 2}, 8),
        ("8", "recipe header", {"nproc_per_node": 2}, 8),
    ],
)
def test_a_flag_has_priority_over_a_variable_and_a_variable_over_a_file(
    value: str, source: str, given: dict[str, Any], expected: object
) -> None:
    for environ in ({}, PET):
        job, _, _ = applied({**environ, "PET_NPROC_PER_NODE": value}, source, **given)
        assert job.nproc_per_node == expected


@pytest.mark.parametrize(
    ("environ", "source", "port"),
    [
        (PET, "flag", 31000),
        (PET, "argument", 31000),
        (PET, "config file x.toml", 29400),
        (SKY, "config file x.toml", 31000),
    ],
)
def test_the_port_of_a_flag_has_priority(
    environ: Mapping[str, str], source: str, port: int
) -> None:
    assert applied(environ, source, master_port=31000)[0].master_port == port


def test_a_number_of_nodes_that_agrees_is_allowed_and_that_of_a_file_gives_way() -> None:
    assert node_of(PET, nodes="4").count == 4
    assert applied(PET, "config file x.toml", nodes="2")[0].nodes.max == 4


@pytest.mark.parametrize(
    ("change", "fields", "words"),
    [
        ({"PET_NNODES": "abc"}, {}, "PET_NNODES='abc' is not a number of nodes"),
        ({"PET_NNODES": "0"}, {}, "PET_NNODES='0' is not"),
        ({"PET_NNODES": "-2"}, {}, "PET_NNODES='-2' is not"),
        ({"PET_NNODES": "٤"}, {}, "is not a number of nodes"),
        ({"PET_NNODES": "99999999999"}, {}, "is not a number of nodes"),
        ({"PET_NNODES": "2\n; rm -rf /"}, {}, "is not a number of nodes"),
        ({"PET_NNODES": "1:4"}, {}, "PET_NNODES=1:4 is elastic"),
        ({"PET_NODE_RANK": "4"}, {}, "PET_NODE_RANK=4 is not below 4"),
        ({"PET_NODE_RANK": "first"}, {}, "PET_NODE_RANK='first' is not a number"),
        ({"PET_NODE_RANK": ""}, {}, "PET_NODE_RANK is not set"),
        ({"PET_MASTER_ADDR": ""}, {}, "PET_MASTER_ADDR or PET_RDZV_ENDPOINT is not set"),
        ({"PET_MASTER_ADDR": "a b; $(id)"}, {}, "is no address"),
        ({"PET_MASTER_PORT": "65536"}, {}, "PET_MASTER_PORT='65536' is not a port"),
        ({"PET_MASTER_PORT": "http"}, {}, "PET_MASTER_PORT='http' is not a port"),
        ({"PET_NPROC_PER_NODE": "many"}, {}, "PET_NPROC_PER_NODE='many' is not auto"),
        ({}, {"nodes": "2"}, "--nodes 2 contradicts PET_NNODES=4"),
        ({}, {"nodes": "1:4"}, "--nodes 1:4 contradicts PET_NNODES=4"),
        ({}, {"max_restarts": 1}, "--max-restarts 1 cannot be kept over 4 nodes"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    change: Mapping[str, str], fields: dict[str, Any], words: str
) -> None:
    assert words in refusal({**PET, **change}, **fields).message


@pytest.mark.parametrize(
    ("environ", "fields", "words"),
    [
        ({**SKY, "SKYPILOT_NODE_IPS": "10.0.0.4"}, {}, "has 1 addresses, but SKYPILOT_NUM_NODES"),
        ({**SKY, "SKYPILOT_NODE_IPS": ""}, {}, "SKYPILOT_NODE_IPS is not set"),
        ({**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, {}, "started distrun 4 times on this node"),
        ({**MPI, "MASTER_ADDR": ""}, {}, "MASTER_ADDR is not set"),
        (POD, {"nodes": "2:4"}, "--nodes 2:4 is elastic"),
        (POD, {"nodes": "2"}, "JOB_COMPLETION_INDEX=3 is not below 2"),
    ],
)
def test_what_is_wrong_on_other_platforms(
    environ: Mapping[str, str], fields: dict[str, Any], words: str
) -> None:
    assert words in refusal(environ, **fields).message


KEY = {"DISTRUN_DIAL_KEY": "0123456789abcdef0123456789abcdef"}


@pytest.mark.parametrize(
    ("environ", "fields", "nodes", "port"),
    [
        (PET, {}, NodeRange(4, 4), 29400),
        ({**PET, "PET_NNODES": "2:4"}, {}, NodeRange(2, 4), 29400),
        (POD, {"nodes": "2:4"}, NodeRange(2, 4), None),
        (OURS, {"max_restarts": 3}, NodeRange(4, 4), None),
        (OURS, {"master_port": 31000}, NodeRange(4, 4), 31000),
    ],
)
def test_with_a_key_node_0_restarts_and_goes_on_with_fewer_and_picks_the_port(
    environ: Mapping[str, str], fields: dict[str, Any], nodes: NodeRange, port: int | None
) -> None:
    found, _, own = applied({**environ, **KEY}, **fields)
    assert own is not None and own.by_head and own.count == 4
    assert (found.nodes, found.master_port) == (nodes, port)


@pytest.mark.parametrize(
    ("hostname", "head"),
    [
        ("train-3.svc.ns.svc.cluster.local", "train-0.svc.ns.svc.cluster.local"),
        ("a-13-3", "a-13-0"),
        ("train-13.svc", None),
        ("laptop", None),
    ],
)
def test_pod_0_of_an_indexed_job_is_named_like_this_pod(
    hostname: str, head: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: hostname)
    environ = {"JOB_COMPLETION_INDEX": "3"}
    if head is None:
        assert "MASTER_ADDR is not set" in refusal(environ, nodes="4").message
    else:
        own = node_of(environ, nodes="4")
        assert (own.head, own.sources["master_addr"]) == (head, "hostname")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ("a", "")),
        ("a:1", ("a", "1")),
        ("[fd00::1]:1", ("fd00::1", "1")),
        ("[fd00::1]", ("fd00::1", "")),
        ("fd00::1", ("fd00::1", "")),
    ],
)
def test_an_address_may_have_a_port(text: str, parts: tuple[str, str]) -> None:
    assert host_and_port(text) == parts
