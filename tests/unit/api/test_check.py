"""What a check is judged for, what its exit code is, and which GPUs of a node count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distrun.api.check import CheckReport, judged
from distrun.api.explain import explain
from distrun.api.visible_gpus import as_ranks_see_it
from distrun.checks.limits import Limits
from distrun.checks.registry import RULES
from distrun.errors import UsageError
from distrun.nodes.reach import addresses_of
from distrun.probe.snapshot import Nic, Node
from distrun.spec import read
from distrun.spec.job import Settings
from tests.unit.checks.bases import NO_DRIVER, cluster, laptop, server, with_field


def report(of: tuple[Node, ...], *, emulated: bool = False, **settings: Any) -> CheckReport:
    return judged(of, read.validated(Settings, settings, "flag"), emulated=emulated)


@pytest.mark.parametrize(
    ("nodes", "settings", "job"),
    [
        ((server(),), {}, (8, 1, True)),
        ((server(),), {"nproc_per_node": 4}, (4, 1, True)),
        ((server(),), {"nproc_per_node": "cpu"}, (192, 1, False)),
        ((server(),), {"gpus": "0,2"}, (2, 1, True)),
        ((server(),), {"gpus": "free:3"}, (3, 1, True)),
        ((server(),), {"nodes": 2, "nproc_per_node": 4}, (4, 1, True)),
        ((laptop(),), {}, (2, 1, False)),
        ((laptop(),), {"nproc_per_node": "gpu"}, (1, 1, True)),
        ((server(),), {"strategy": "dp"}, (1, 1, True)),
        ((laptop(),), {"strategy": "dp"}, (1, 1, False)),
        ((server(),), {"env": {"CUDA_VISIBLE_DEVICES": "2,3"}}, (2, 1, True)),
        ((server(),), {"env": {"CUDA_VISIBLE_DEVICES": ""}}, (4, 1, False)),
        ((server(),), {"env": {"CUDA_VISIBLE_DEVICES": "-1"}}, (4, 1, False)),
        ((laptop(),), {"nodes": 3}, (2, 1, False)),
        (cluster(), {}, (8, 4, True)),
        (cluster(), {"nproc_per_node": 2}, (2, 4, True)),
    ],
)
def test_the_job_is_the_one_of_the_settings(
    nodes: tuple[Node, ...], settings: dict[str, Any], job: tuple[int, int, bool]
) -> None:
    found = report(nodes, **settings).job
    assert (found.nproc_per_node, found.nnodes, found.uses_gpus) == job


@pytest.mark.parametrize(
    ("node", "settings", "ranks"),
    [
        (server(), {"nodes": 2, "nproc_per_node": 4}, 8),
        (server(), {"nodes": 4, "nproc_per_node": 4}, 16),
        (server(), {"nodes": 4}, 8),
        (server(), {"nodes": 3}, 6),
        (server(), {"nodes": 2, "gpus": "0,2"}, 2),
        (server(), {"nodes": 2, "gpus": "free:4"}, 4),
        (laptop(), {"nodes": 2}, 2),
        (laptop(), {"nodes": 3}, 3),
    ],
)
def test_emulated_nodes_share_what_the_machine_has_as_in_a_launch(
    node: Node, settings: dict[str, Any], ranks: int
) -> None:
    assert report((node,), emulated=True, **settings).job.nproc_per_node == ranks


@pytest.mark.parametrize(
    ("visible", "gpus", "ranks", "fails"),
    [
        ("4,5", None, 2, False),
        (" 4 ,5", None, 2, False),
        ("4,5", "free:2", 2, False),
        ("4,5", "free:3", 3, False),
        ("4,5", "0,1,2", 3, False),
        ("MIG-a,MIG-b", None, 2, False),
        ("7,99", None, 1, False),
        ("0,99,1", None, 1, False),
        ("99,7", None, 4, True),
        ("0,0", None, 4, True),
    ],
)
def test_gpus_that_the_environment_hides_are_not_asked_for(
    visible: str, gpus: str | None, ranks: int, fails: bool
) -> None:
    nodes = with_field((server(),), "0.host.environ", {"CUDA_VISIBLE_DEVICES": visible})
    settings: dict[str, Any] = {} if gpus is None else {"gpus": gpus}
    found = report(nodes, **settings)
    assert found.job.nproc_per_node == ranks
    assert ("gpu.count" in {f.id for f in found.findings}) is fails
    assert len(found.nodes[0].nvml.gpus) == 8


@pytest.mark.parametrize(
    ("path", "value", "uses_gpus"),
    [
        ("0.software.torch_cuda", None, False),
        ("0.nvml", NO_DRIVER, False),
        ("0.nvml", replace(NO_DRIVER, problem_kind="mismatch"), True),
        ("0.host.environ", {"CUDA_VISIBLE_DEVICES": ""}, False),
        ("0.host.environ", {"CUDA_VISIBLE_DEVICES": "0"}, True),
    ],
)
def test_a_job_is_on_gpus_if_there_are_any_that_torch_could_use(
    path: str, value: Any, uses_gpus: bool
) -> None:
    assert report(with_field((server(),), path, value)).job.uses_gpus is uses_gpus


def test_a_node_with_fewer_gpus_falls_short_of_the_others() -> None:
    nodes = with_field(cluster(), "2.nvml.gpus.5.lost", "GpuIsLost")
    found = {(f.id, f.node) for f in report(nodes).findings}
    assert ("gpu.count", "node2") in found


@pytest.mark.parametrize(
    ("path", "value", "strict", "code"),
    [
        ("0.host.shm_free_nbytes", 900 << 30, False, 0),
        ("0.host.shm_free_nbytes", 500 << 20, False, 0),
        ("0.host.shm_free_nbytes", 500 << 20, True, 1),
        ("0.host.shm_free_nbytes", 5 << 20, False, 1),
        ("0.problem", "no answer", False, 3),
        ("0.nvml.problem_kind", "hang", False, 3),
        ("0.nvml.problem_kind", "failed", False, 3),
    ],
)
def test_the_exit_code_says_what_the_worst_was(
    path: str, value: Any, strict: bool, code: int
) -> None:
    nodes = with_field((server(),), path, value)
    assert report(nodes, strict=strict).exit_code == code


def test_no_nodes_are_not_healthy_ones() -> None:
    with pytest.raises(UsageError, match="there are no nodes to judge"):
        report(())


# --- GPUs that are left out --------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "kept"),
    [
        (None, list(range(8))),
        ("", []),
        ("3", [3]),
        ("5, 1", [1, 5]),
        ("0,9", [0]),
        ("MIG-4f3a", list(range(8))),
        ("GPU-", list(range(8))),
        ("GPU-nobody", []),
    ],
)
def test_gpus_that_are_not_visible_are_left_out(visible: str | None, kept: list[int]) -> None:
    seen = as_ranks_see_it(server(), visible)
    assert [gpu.index for gpu in seen.nvml.gpus] == kept
    assert {end for pair in seen.nvml.pairs for end in (pair.a, pair.b)} <= set(kept)
    assert seen.host.environ.get("CUDA_VISIBLE_DEVICES") == visible


def test_a_gpu_may_be_named_by_its_uuid() -> None:
    node = server()
    assert as_ranks_see_it(node, node.nvml.gpus[6].uuid[:20]).nvml.gpus == (node.nvml.gpus[6],)


# --- how nodes reach one another ---------------------------------------------------------


def test_a_node_is_tried_by_its_names_and_then_by_addresses_that_are_its_own() -> None:
    bridge = Nic("docker0", True, addresses=("172.17.0.1",))
    down = Nic("eth9", False, addresses=("10.9.9.9",))
    nodes = [replace(server(name), name=f"ada@{name}.x:22") for name in ("node0", "node1")]
    nodes = [replace(n, host=replace(n.host, nics=(bridge, down, *n.host.nics))) for n in nodes]
    tried = addresses_of(nodes[1], nodes, "node1.x")
    assert tried[:2] == ("node1.x", "node1")
    assert set(tried[2:]) == {a for nic in server("node1").host.nics for a in nic.addresses}


# --- explanations ------------------------------------------------------------------------


def test_every_limit_belongs_to_a_rule_that_explains_it() -> None:
    explained = {limit.name for each in explain("all") for limit in each.limits}
    assert explained == set(Limits.__dataclass_fields__)
    assert all(limit.doc for each in explain("all") for limit in each.limits)
    assert [each.rule for each in explain("all")] == list(RULES)


def test_a_prefix_explains_its_rules_and_limits_are_those_of_the_settings() -> None:
    settings = read.validated(Settings, {"check": {"shm-warn-nbytes": 7}}, "config file x")
    (shm,) = explain("host.shm", settings)
    limits = {limit.name: (limit.value, limit.default) for limit in shm.limits}
    assert limits["shm_warn_nbytes"] == (7, 1 << 30)
    assert {each.rule.id.partition(".")[0] for each in explain("deep.*")} == {"deep"}
