"""From a job and a machine to ranks, devices, threads and ports."""

from __future__ import annotations

import re
from typing import Any

import pytest

from distrun.errors import DistrunError, MachineError, UsageError
from distrun.plan.layout import run_name
from distrun.plan.model import LaunchPlan
from distrun.plan.site import Site
from distrun.probe.snapshot import Gpu, Nvml
from distrun.spec.job import Constraints, Header, Range
from tests.unit.machines import gpu, machine, planned

DEVICES = "CUDA_VISIBLE_DEVICES"


def chosen(plan: LaunchPlan, name: str) -> tuple[str, str]:
    """Return value and source of a choice; there must be exactly one of that name."""
    (setting,) = [s for s in plan.settings if s.name == name]
    return setting.value, setting.source


def refusal(kind: type[DistrunError], facts: Site | None = None, **fields: Any) -> DistrunError:
    with pytest.raises(DistrunError) as refused:
        planned(facts, **fields)
    assert type(refused.value) is kind
    assert "\n" not in refused.value.message
    return refused.value


# --- how many ranks ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "gpus", "cores", "nodes", "nproc"),
    [
        ("auto", 0, 8, 1, 4),
        ("auto", 0, 3, 1, 3),
        ("auto", 0, 2, 4, 1),
        ("auto", 0, 8, 4, 2),
        ("auto", 1, 8, 1, 1),
        ("auto", 8, 2, 1, 8),
        ("auto", 8, 2, 2, 4),
        ("auto", 3, 8, 2, 1),
        ("auto", 1, 8, 2, 4),
        ("gpu", 8, 2, 1, 8),
        ("gpu", 8, 2, 4, 2),
        ("gpu", 1, 2, 1, 1),
        ("cpu", 8, 2, 1, 2),
        ("cpu", 0, 64, 2, 32),
        ("cpu", 0, 1, 4, 1),
        (5, 0, 2, 1, 5),
        (1, 8, 2, 1, 1),
    ],
)
def test_ranks_a_node(asked: object, gpus: int, cores: int, nodes: int, nproc: int) -> None:
    plan = planned(machine(gpus, cores=cores), nproc_per_node=asked, nodes=nodes)
    assert (plan.nnodes, plan.nproc_per_node, plan.world_size) == (nodes, nproc, nodes * nproc)
    assert chosen(plan, "--nproc-per-node")[1] == ("flag" if isinstance(asked, int) else "detected")


def test_auto_without_gpus_says_so() -> None:
    assert planned(machine(cores=8), nodes=2).notes == (
        "4 ranks a node: no GPU, 8 cores over 2 emulated nodes, at most 4 ranks a node",
    )
    assert planned(machine(cores=1)).notes == (
        "1 rank a node: no GPU, 1 core, at most 4 ranks a node",
    )


def test_fewer_gpus_than_ranks_is_told() -> None:
    plan = planned(machine(2), nproc_per_node=4)
    assert plan.notes == ("fewer GPUs (2) than ranks (4) a node: recipes use gloo on CPU",)
    assert planned(machine(2), nproc_per_node=2).notes == ()


@pytest.mark.parametrize(
    ("visible", "usable"),
    [
        (None, 4),
        ("", 0),
        ("-1", 0),
        ("0", 1),
        ("2,3", 2),
        (" 2 , 3 ", 2),
        ("0,-1,1", 1),
        ("0,9,1", 1),
        ("2,2", 0),
        ("GPU-0001-uuid,GPU-0003", 2),
        ("GPU-ffff", 0),
        ("MIG-1c2d", 1),
        ("nonsense", 0),
    ],
)
def test_auto_counts_the_gpus_that_cuda_visible_devices_leaves(
    visible: str | None, usable: int
) -> None:
    plan = planned(machine(4, visible=visible, cores=3))
    assert plan.nproc_per_node == (usable or 3)
    plan = planned(machine(4, cores=3), env={} if visible is None else {DEVICES: visible})
    assert plan.nproc_per_node == (usable or 3)


def test_gpus_that_this_torch_cannot_use_do_not_count() -> None:
    cpu_build = machine(8, cuda=None, cores=2)
    assert planned(cpu_build).nproc_per_node == 2
    for wish in ({"nproc_per_node": "gpu"}, {"gpus": "0"}):
        error = refusal(MachineError, cpu_build, **wish)
        assert "torch 2.13.0 is built without CUDA" in error.message


def test_gpu_without_a_gpu_is_what_the_machine_lacks() -> None:
    error = refusal(MachineError, nproc_per_node="gpu")
    assert error.message == ("--nproc-per-node gpu finds no GPU: no NVIDIA driver is installed")
    assert error.hint == "--nproc-per-node cpu"
    error = refusal(MachineError, machine(1), nproc_per_node="gpu", nodes=2)
    assert "1 usable for 2 nodes" in error.message


# --- which GPUs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "nodes", "nproc", "shares"),
    [
        ("0,2", 1, 2, ["0,2"]),
        ("3,1", 1, 2, ["3,1"]),
        ("0,1,2,3", 2, 2, ["0,1", "2,3"]),
        ("0,1,2", 2, 1, ["0", "1"]),
        ("free:2", 1, 2, ["1,3"]),
        ("free:2", 2, 1, ["1", "3"]),
    ],
)
def test_gpus_are_shared_out_to_the_nodes(
    gpus: str, nodes: int, nproc: int, shares: list[str]
) -> None:
    busy = (0, 2) if gpus.startswith("free") else ()
    plan = planned(machine(4, busy=busy), gpus=gpus, nodes=nodes)
    assert plan.nproc_per_node == nproc
    assert [node.environ[DEVICES] for node in plan.nodes] == shares
    assert {node.environ["CUDA_DEVICE_ORDER"] for node in plan.nodes} == {"PCI_BUS_ID"}


def test_without_gpus_asked_for_one_node_keeps_the_variable_as_it_is() -> None:
    assert DEVICES not in planned(machine(4)).nodes[0].environ
    assert DEVICES not in planned(machine(4, visible="2,3")).nodes[0].environ


@pytest.mark.parametrize(
    ("visible", "shares", "order"),
    [(None, ["0,1", "2,3"], "PCI_BUS_ID"), ("3,1", ["3", "1"], None)],
)
def test_emulated_nodes_share_out_the_gpus_that_auto_found(
    visible: str | None, shares: list[str], order: str | None
) -> None:
    plan = planned(machine(4, visible=visible), nodes=2)
    assert [node.environ[DEVICES] for node in plan.nodes] == shares
    assert plan.nodes[0].environ.get("CUDA_DEVICE_ORDER") == order
    assert chosen(plan, DEVICES)[1] == "detected"
    assert DEVICES not in planned(machine(1), nodes=2).nodes[0].environ


def test_every_host_gets_all_the_gpus_that_were_named() -> None:
    plan = planned(machine(4), gpus="0,1", hosts="a,b")
    assert [node.environ[DEVICES] for node in plan.nodes] == ["0,1", "0,1"]
    assert plan.nproc_per_node == 2


@pytest.mark.parametrize(
    ("facts", "fields", "said", "hint"),
    [
        (
            machine(),
            {"gpus": "0"},
            "--gpus 0 asks for GPUs, but there are none: no NVIDIA",
            "leave",
        ),
        (machine(2), {"gpus": "0,5"}, "--gpus 0,5 names GPU 5; this machine has 2: 0, 1", ""),
        (
            machine(4, busy=(0, 1, 2)),
            {"gpus": "free:2"},
            "--gpus free:2 asks for 2 unused GPUs, 1 of 4 are unused",
            "--gpus free:1",
        ),
        (machine(1, busy=(0,)), {"gpus": "free:1"}, "0 of 1 are unused", "wait for the others"),
        (
            machine(4, busy=(1, 3)),
            {"gpus": "0,1"},
            "--gpus 0,1 names GPUs in use: GPU 1: pid 4242 (ada, python train.py, 40.0 GiB)",
            "--gpus free:2 picks unused GPUs; or wait; or --no-check shares the GPUs",
        ),
        (
            machine(4),
            {"gpus": "0,1", "nproc_per_node": 3},
            "--nproc-per-node 3 is above the 2 GPUs a node that --gpus 0,1 gives",
            "--nproc-per-node 2",
        ),
        (
            machine(4),
            {"gpus": "0,1", "nodes": 3},
            "--gpus 0,1 cannot be divided among 3 nodes",
            "--nodes 2",
        ),
    ],
)
def test_gpus_that_are_not_there_are_what_the_machine_lacks(
    facts: Site, fields: dict[str, Any], said: str, hint: str
) -> None:
    error = refusal(MachineError, facts, **fields)
    assert said in error.message
    assert error.hint.startswith(hint)


def test_busy_gpus_are_shared_with_whoever_is_there_when_that_is_asked_for() -> None:
    shared = planned(machine(2, busy=(0, 1)), gpus="0,1", check=False)
    assert shared.nodes[0].environ[DEVICES] == "0,1"
    elsewhere = planned(machine(2, busy=(0, 1)), gpus="0,1", hosts="a,b")
    assert elsewhere.nodes[0].environ[DEVICES] == "0,1"


def test_gpus_of_a_driver_that_stops_answering_half_way_are_not_counted() -> None:
    gpus = tuple(gpu(index) for index in range(2))
    half = machine(2, nvml=Nvml("NVML did not answer within 5 s", gpus=gpus))
    assert DEVICES not in planned(half, nodes=2).nodes[0].environ
    error = refusal(MachineError, half, gpus="0")
    assert error.message == (
        "--gpus 0 asks for GPUs, but there are none: NVML did not answer within 5 s"
    )


def test_lost_gpus_are_not_handed_out_and_named_if_they_are_all() -> None:
    lost = Gpu(0, lost="GpuIsLost")
    one = machine(2, nvml=Nvml(gpus=(lost, gpu(1))))
    assert planned(one, gpus="free:1").nodes[0].environ[DEVICES] == "1"
    none = machine(2, nvml=Nvml(gpus=(lost,)))
    error = refusal(MachineError, none, gpus="0")
    assert error.message.endswith("there are none: GPU 0: GpuIsLost")


# --- strategies and constraints ------------------------------------------------------------


@pytest.mark.parametrize("asked", ["auto", 1])
def test_dp_is_one_process(asked: object) -> None:
    plan = planned(machine(8), strategy="dp", nproc_per_node=asked)
    assert plan.world_size == 1
    assert plan.nodes[0].environ["DISTRUN_STRATEGY"] == "dp"
    assert chosen(plan, "--nproc-per-node") == ("1", "flag")


@pytest.mark.parametrize("more", [{"nproc_per_node": 2}, {"nodes": 2}, {"nproc_per_node": "gpu"}])
def test_dp_with_more_than_one_process_is_refused(more: dict[str, Any]) -> None:
    error = refusal(UsageError, machine(2), strategy="dp", **more)
    assert error.message.startswith("strategy dp is one process; --nodes ")
    assert error.hint


@pytest.mark.parametrize(
    ("rules", "fields", "broken"),
    [
        ({"world_size": Range(min=8)}, {"nproc_per_node": 4}, "a world-size of at least 8"),
        ({"world_size": Range(multiple_of=3)}, {"nproc_per_node": 4}, "a multiple of 3"),
        ({"nodes": Range(max=1)}, {"nodes": 2}, "a nodes of at most 1"),
        ({"nproc_per_node": Range(min=2)}, {"nproc_per_node": 1}, "a nproc-per-node of at least 2"),
        ({"strategy": ("fsdp", "tp")}, {"strategy": "ddp"}, "knows the strategies fsdp, tp"),
        ({"strategy": ("fsdp",)}, {}, "this launch has none"),
    ],
)
def test_a_broken_constraint_of_the_recipe_is_refused(
    rules: dict[str, Any], fields: dict[str, Any], broken: str
) -> None:
    error = refusal(UsageError, header=Header(constraints=Constraints(**rules)), **fields)
    assert error.message.startswith("train.py ")
    assert broken in error.message
    assert error.hint


def test_constraints_that_hold_are_no_matter() -> None:
    rules = Constraints(world_size=Range(min=2, multiple_of=2), strategy=("ddp",))
    header = Header(constraints=rules)
    assert planned(header=header, strategy="ddp", nproc_per_node=2).world_size == 2


# --- hosts, ports, threads -------------------------------------------------------------------


def test_hosts_get_their_addresses_and_a_fixed_port() -> None:
    facts = machine(addresses={"a": "10.0.0.1", "b": None}, cores=2)
    plan = planned(facts, hosts="a,b")
    assert [(n.host, n.address) for n in plan.nodes] == [("a", "10.0.0.1"), ("b", "b")]
    assert (plan.local, plan.master_port, plan.min_nodes) == (False, 29500, 2)
    assert "GLOO_SOCKET_IFNAME" not in plan.nodes[0].environ
    assert chosen(plan, "--master-addr") == ("10.0.0.1", "detected")


@pytest.mark.parametrize("nodes", [2, "1:2"])
def test_hosts_and_the_same_number_of_nodes_agree(nodes: object) -> None:
    assert planned(hosts="a,b", nodes=nodes).nnodes == 2


def test_an_elastic_range_plans_the_most_and_keeps_the_least() -> None:
    plan = planned(nodes="2:4")
    assert (plan.nnodes, plan.min_nodes) == (4, 2)
    assert chosen(plan, "--nnodes") == ("2:4", "flag")


@pytest.mark.parametrize(("port", "users"), [(None, False), (12345, True)])
def test_a_port_is_free_or_the_users_own(port: int | None, users: bool) -> None:
    given: dict[str, Any] = {} if port is None else {"master_port": port}
    plan = planned(**given)
    assert (plan.master_port, plan.master_port_is_users) == (port or 40000, users)
    assert chosen(plan, "--master-port")[1] == ("flag" if users else "detected")


@pytest.mark.parametrize(
    ("cores", "nodes", "nproc", "threads"), [(8, 1, 2, "4"), (8, 2, 2, "2"), (2, 2, 4, "1")]
)
def test_cores_are_shared_out_as_threads(cores: int, nodes: int, nproc: int, threads: str) -> None:
    plan = planned(machine(cores=cores), nodes=nodes, nproc_per_node=nproc)
    assert plan.nodes[-1].environ["OMP_NUM_THREADS"] == threads
    assert chosen(plan, "OMP_NUM_THREADS") == (threads, "detected")


def test_threads_and_interface_of_the_environment_stay_and_a_flag_wins() -> None:
    plan = planned(machine(omp="3"))
    assert chosen(plan, "OMP_NUM_THREADS") == ("3", "environment")
    plan = planned(machine(omp="3"), env={"OMP_NUM_THREADS": "5"})
    assert chosen(plan, "OMP_NUM_THREADS") == ("5", "flag")
    assert plan.nodes[0].environ["OMP_NUM_THREADS"] == "5"
    fast = machine(nccl_interface="ib0")
    assert chosen(planned(fast), "NCCL_SOCKET_IFNAME") == ("ib0", "environment")
    assert chosen(planned(fast), "GLOO_SOCKET_IFNAME") == ("lo", "detected")
    assert chosen(planned(fast, interface="lo"), "NCCL_SOCKET_IFNAME") == ("lo", "flag")


def test_a_flag_wins_over_the_env_file_and_both_over_what_was_detected() -> None:
    secret = {"GLOO_SOCKET_IFNAME": "eth1", "A": "file"}
    plan = planned(env={"A": "flag"}, secret_env=secret)
    environ = plan.nodes[0].environ
    assert (environ["GLOO_SOCKET_IFNAME"], environ["A"]) == ("eth1", "flag")
    assert chosen(plan, "GLOO_SOCKET_IFNAME") == ("***", "env file")


# --- secrets, warmth, names ------------------------------------------------------------------


def test_secrets_reach_the_ranks_and_no_setting() -> None:
    plan = planned(
        env={"HF_TOKEN": "hunter2", "PLAIN": "seen"}, secret_env={"FROM_FILE": "hunter3"}
    )
    assert plan.secrets == ("FROM_FILE", "HF_TOKEN")
    assert plan.nodes[0].environ["HF_TOKEN"] == "hunter2"
    assert plan.nodes[0].environ["FROM_FILE"] == "hunter3"
    assert "hunter" not in repr(plan.settings) + repr(plan.notes)
    assert chosen(plan, "HF_TOKEN") == ("***", "flag")
    assert chosen(plan, "PLAIN") == ("seen", "flag")


@pytest.mark.parametrize(
    ("fields", "cold_reason", "warm", "noted"),
    [
        ({}, "", True, False),
        ({"start_method": "spawn"}, "", False, False),
        ({}, "it sets A before it imports torch", False, True),
        ({"start_method": "spawn"}, "it sets A before it imports torch", False, False),
        ({"no_python": True, "script": "/bin/true"}, "", False, False),
    ],
)
def test_a_script_starts_warm_unless_it_must_not(
    fields: dict[str, Any], cold_reason: str, warm: bool, noted: bool
) -> None:
    plan = planned(cold_reason=cold_reason, nproc_per_node=1, **fields)
    assert plan.warm is warm
    assert (plan.notes == (f"train.py starts cold: {cold_reason}",)) is noted


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("train", "20260131-235959-train-beef"),
        ("my train v2", "20260131-235959-my-train-v2-beef"),
        ("../../etc/passwd", "20260131-235959-etc-passwd-beef"),
        ("a'b\"c$d`e;f\ng", "20260131-235959-a-b-c-d-e-f-g-beef"),
        ("\u00fcbung", "20260131-235959-bung-beef"),
        ("\u65e5\u672c", "20260131-235959-run-beef"),
        ("-", "20260131-235959-run-beef"),
        ("", "20260131-235959-run-beef"),
        ("x" * 300, f"20260131-235959-{'x' * 40}-beef"),
    ],
)
def test_a_run_name_is_nothing_a_shell_or_a_path_would_mind(program: str, name: str) -> None:
    made = run_name(program, "20260131-235959", "beef")
    assert made == name
    assert re.fullmatch(r"[A-Za-z0-9_-]+", made)
