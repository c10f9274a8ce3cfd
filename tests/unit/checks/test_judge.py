"""Judging: what is left out, in which order it is told, and what a job makes of it."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from distrun.checks.judge import judge
from distrun.checks.limits import Limits
from distrun.checks.quick import QUICK
from distrun.checks.registry import RULES, known
from distrun.checks.rule import Severity, Workload
from distrun.probe.reading import Unread, within
from distrun.probe.snapshot import Gpu, GpuProcess, InfinibandPort, Nvml
from tests.unit.checks.bases import findings, h100, job_for, with_field, without_field
from tests.unit.checks.cases import LAPTOP, NODE, NODES

HOT = with_field(NODE, "0.nvml.gpus.3.temperature_c", 95)
PORT = InfinibandPort("mlx5_0", 1, "4: ACTIVE", "5: LinkUp", "", "InfiniBand")
UNKNOWN_HEALTH = replace(h100(3), fabric_health_mask=None, fabric_health_summary=None)
BROKEN = with_field(HOT, "0.host.shm_free_nbytes", 0)
BROKEN = with_field(BROKEN, "0.nvml.gpus.1.persistence_mode", False)


def test_the_worst_comes_first_and_equals_come_in_the_registrys_order() -> None:
    order = [rule.id for rule in RULES]
    found = findings(without_field(BROKEN, "0.host.nofile", "NoPermission"))
    keys = [(-f.severity, order.index(f.id)) for f in found]
    assert keys == sorted(keys)
    assert [f.id for f in found[:3]] == ["gpu.temperature", "host.shm", "gpu.persistence"]
    assert {f.severity for f in found[3:]} == {Severity.SKIP}


def test_a_finding_names_node_and_gpu_and_brings_what_its_rule_says() -> None:
    (found,) = findings(HOT, "gpu.temperature")
    (rule,) = [rule for rule in RULES if rule.id == "gpu.temperature"]
    assert (found.node, found.device) == ("node0", "GPU 3 GPU-00000003 0000:4d:00.0")
    assert (found.observed, found.expected) == ("95 °C", "below 89 °C, where it slows down")
    assert (found.why, found.fix, found.source) == (rule.why, rule.fix, rule.source)


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ((), {"gpu.temperature", "host.shm", "gpu.persistence"}),
        (("gpu.temperature",), {"host.shm", "gpu.persistence"}),
        (("gpu.*",), {"host.shm"}),
        (("gpu.temperature", "host.shm"), {"gpu.persistence"}),
        (("gpu",), {"gpu.temperature", "host.shm", "gpu.persistence"}),
        (("gpu.temp.*", "host.sh.*"), {"gpu.temperature", "host.shm", "gpu.persistence"}),
        (("gpu.*", "host.*", "nodes.*"), set()),
    ],
)
def test_what_is_ignored_is_left_out(ignore: tuple[str, ...], left: set[str]) -> None:
    told = findings(BROKEN, ignore=ignore)
    assert {f.id for f in told if f.severity > Severity.SKIP} == left


@pytest.mark.parametrize("pattern", ["gpu.temperature", "gpu.*", "gpu.ecc.*", "host.shm"])
def test_a_rule_or_a_group_of_rules_is_known(pattern: str) -> None:
    assert known(pattern)


@pytest.mark.parametrize("pattern", ["", "*", ".*", "gpu", "gpu.", "GPU.*", "gpu.temp.*", "host.x"])
def test_what_names_no_rule_is_not_known(pattern: str) -> None:
    assert not known(pattern)


def test_the_quick_rules_that_a_launch_imports_are_those_of_the_registry() -> None:
    assert tuple(rule for rule in RULES if rule.quick) == QUICK


def test_a_quick_look_judges_by_the_quick_rules_alone() -> None:
    quick = {rule.id for rule in RULES if rule.quick}
    nodes = with_field(BROKEN, "0.nvml.gpus.2.recovery_action", 1)
    assert {f.id for f in findings(nodes, quick=True)} == {"gpu.recovery", "host.shm"}
    assert {f.id for f in findings(nodes)} - quick == {"gpu.temperature", "gpu.persistence"}


def test_a_node_whose_probe_came_to_no_end_fails_once_and_is_judged_by_no_other_rule() -> None:
    nodes = with_field(NODES, "2.problem", "no answer within 20 s")
    nodes = with_field(nodes, "2.nvml.gpus.3.temperature_c", 95)
    nodes = with_field(nodes, "2.software.torch", "1.0")
    found = [f for f in findings(nodes) if f.severity > Severity.SKIP]
    assert [(f.id, f.node, f.observed) for f in found] == [
        ("nodes.unreachable", "node2", "no answer within 20 s")
    ]


def test_when_no_node_answers_each_of_them_fails() -> None:
    nodes = tuple(replace(node, problem="refused") for node in NODES)
    assert [f.node for f in findings(nodes)] == ["node0", "node1", "node2", "node3"]


def test_to_a_job_on_cpus_what_is_wrong_with_gpus_is_information() -> None:
    nodes = with_field(with_field(BROKEN, "0.nvml.gpus.4.lost", "GpuIsLost"), "0.host.nofile", 9)
    found = findings(nodes, job=Workload(8, 1, uses_gpus=False))
    worst = {f.id: f.severity for f in found if f.severity > Severity.SKIP}
    assert worst.pop("host.nofile") is Severity.FAIL
    assert set(worst) == {"gpu.lost", "gpu.temperature", "gpu.persistence", "host.shm"}
    assert set(worst.values()) == {Severity.INFO}


@pytest.mark.parametrize(("uses_gpus", "severity"), [(False, Severity.INFO), (True, Severity.FAIL)])
def test_of_a_machine_without_a_driver_one_line_tells(uses_gpus: bool, severity: Severity) -> None:
    found = [
        f for f in findings(LAPTOP, job=Workload(uses_gpus=uses_gpus)) if f.id.startswith("gpu.")
    ]
    assert [(f.id, f.severity, f.observed) for f in found] == [
        ("gpu.driver", severity, "no NVIDIA driver: GPUs are not checked")
    ]


def test_a_driver_that_hangs_leaves_what_it_told_before_to_be_judged() -> None:
    hang = "NVML did not answer within 10 s (it hangs in nvmlDeviceGetTemperature of GPU 3)"
    nvml = replace(HOT[0].nvml, problem=hang, problem_kind="hang", driver_version=None)
    found = [f for f in findings(with_field(NODE, "0.nvml", nvml)) if f.severity > Severity.SKIP]
    assert [(f.id, f.severity) for f in found] == [
        ("gpu.driver", Severity.FAIL),
        ("gpu.temperature", Severity.FAIL),
    ]
    assert found[0].observed == hang


def test_skips_of_a_rule_are_one_line_a_node_with_their_reasons() -> None:
    nodes = NODES
    for place in ("1.nvml.gpus.0", "1.nvml.gpus.1", "1.nvml.gpus.2", "1.nvml.gpus.6"):
        nodes = without_field(nodes, f"{place}.persistence_mode", "NotSupported")
    nodes = without_field(nodes, "1.nvml.gpus.7.persistence_mode", "NoPermission")
    nodes = without_field(nodes, "3.nvml.gpus.4.persistence_mode", "NotSupported")
    assert [(f.node, f.device, f.observed) for f in findings(nodes, "gpu.persistence")] == [
        ("node1", "GPUs 0-2, 6-7", "NotSupported on GPUs 0-2, 6; NoPermission on GPU 7"),
        ("node3", "GPU 4", "NotSupported on GPU 4"),
    ]


def test_skips_of_devices_that_are_no_gpus_name_them() -> None:
    nodes = with_field(NODES, "0.host.infiniband.2.link_downed", None)
    nodes = with_field(nodes, "0.host.infiniband.5.link_downed", None)
    (found,) = findings(nodes, "host.infiniband.flaps")
    assert found.severity is Severity.SKIP
    assert found.observed == "the counter link_downed was not read on mlx5_2:1, mlx5_5:1"


def test_a_roce_port_whose_interface_is_in_another_namespace_is_skipped() -> None:
    nodes = with_field(NODES, "2.host.infiniband", (replace(PORT, link_layer="Ethernet"),))
    nodes = with_field(nodes, "2.host.infiniband.0.nics", ("eth9",))
    (found,) = findings(nodes, "host.mtu")
    assert (found.severity, found.node, found.device) == (Severity.SKIP, "node2", "mlx5_0:1")


@pytest.mark.parametrize("quick", [False, True])
def test_a_run_directory_whose_disk_hangs_fails(quick: bool) -> None:
    def hang() -> None:
        never.wait()

    never = threading.Event()
    with pytest.raises(Unread) as late:
        within(0.05, "the disk of runs", hang)
    never.set()
    nodes = without_field(NODE, "0.host.runs_dir_writable", str(late.value))
    (found,) = findings(nodes, "host.runs_dir", quick=quick)
    assert (found.severity, found.device) == (Severity.FAIL, "runs")
    assert found.observed == "the disk of runs did not answer within 0.05 s"


def test_a_port_whose_state_cannot_be_read_is_skipped() -> None:
    (found,) = findings(with_field(NODE, "0.host.infiniband.2.state", ""), "host.infiniband")
    assert (found.severity, found.device) == (Severity.SKIP, "mlx5_2:1")


@pytest.mark.parametrize(
    ("rule", "path", "value", "says"),
    [
        ("nodes.reach", "2.reaches", (), "connections were not tried"),
        ("nodes.gpu.count", "2.nvml", Nvml("did not answer", "hang"), "did not answer"),
        ("nodes.gpu.model", "2.nvml.gpus", (Gpu(0),), "no GPU reports its name"),
        ("gpu.fabric.health", "2.nvml.gpus.3", UNKNOWN_HEALTH, "not read on GPU 3"),
        ("nodes.infiniband.rate", "2.host.infiniband", (PORT,), "the rate was not read"),
    ],
)
def test_what_could_not_be_read_of_one_node_is_skipped(
    rule: str, path: str, value: object, says: str
) -> None:
    (found,) = findings(with_field(NODES, path, value), rule)
    assert (found.severity, found.node, found.observed) == (Severity.SKIP, "node2", says)


def test_of_nodes_whose_clocks_nobody_compared_each_is_skipped_but_not_the_one_that_asks() -> None:
    assert findings(NODES, "nodes.clock") == []
    nodes = with_field(NODES, "2.host.clock_offset_s", None)
    found = [(f.severity, f.node, f.observed) for f in findings(nodes, "nodes.clock")]
    assert found == [(Severity.SKIP, name, "not measured") for name in ("node0", "node2")]


def test_pairs_that_cannot_be_asked_are_named() -> None:
    nodes = without_field(NODE, "0.nvml.pairs.0.topology", "NotSupported")
    nodes = without_field(nodes, "0.nvml.pairs.8.topology", "NotSupported")
    (found,) = findings(nodes, "gpu.topology")
    assert found.observed == "NotSupported on GPUs 0 and 1, GPUs 1 and 3"


@pytest.mark.parametrize(("nproc", "told"), [(8, ["GPU 1", "GPU 3"]), (3, ["GPU 1"]), (1, [])])
def test_a_launch_tells_who_is_on_the_gpus_that_its_ranks_would_take(
    nproc: int, told: list[str]
) -> None:
    nodes = with_field(NODE, "0.nvml.gpus.1.processes", (GpuProcess(42, 9 << 30, "ada", "x"),))
    nodes = with_field(nodes, "0.nvml.gpus.3.memory_used_nbytes", 9 << 30)
    found = findings(nodes, job=job_for(nodes, nproc_per_node=nproc), quick=True)
    assert sorted(f.device[:5] for f in found) == told
    assert {f.severity for f in found} <= {Severity.WARN}


def test_a_lost_gpu_has_one_line_and_no_skips() -> None:
    nodes = with_field(NODE, "0.nvml.gpus.3", replace(NODE[0].nvml.gpus[3], lost="GpuIsLost"))
    nodes = with_field(nodes, "0.nvml.gpus.3.recovery_action", None)
    found = findings(nodes)
    assert [f.id for f in found if f.device] == ["gpu.lost"]
    assert Severity.SKIP not in {f.severity for f in found}


def test_a_gpu_that_may_not_be_opened_is_skipped_and_counts_for_nothing() -> None:
    nvml = replace(NODE[0].nvml, gpus=NODE[0].nvml.gpus[:6], refused_gpus=(6, 7))
    (found,) = [f for f in findings(with_field(NODE, "0.nvml", nvml)) if f.id != "nodes.gpu.count"]
    assert (found.id, found.severity) == ("gpu.lost", Severity.SKIP)
    assert (found.device, found.observed) == ("GPUs 6-7", "NoPermission on GPUs 6-7")


def test_when_no_link_of_a_board_is_up_every_gpu_on_it_fails() -> None:
    nodes = NODE
    for gpu in range(8):
        for link in range(18):
            nodes = with_field(nodes, f"0.nvml.gpus.{gpu}.nvlinks.{link}.active", False)
    found = findings(nodes, "gpu.nvlink.count")
    assert [f.severity for f in found] == [Severity.FAIL] * 8
    assert {(f.observed[:23], f.expected) for f in found} == {
        ("0 NVLinks up (down: 0, ", "18: its board has that many")
    }


def test_limits_are_those_that_are_given() -> None:
    warm = with_field(NODE, "0.nvml.gpus.3.temperature_c", 70)
    job = job_for(warm)
    assert "gpu.temperature" not in {f.id for f in judge(warm, job, Limits())}
    found = judge(warm, job, Limits(temperature_margin_c=20))
    assert ("gpu.temperature", Severity.WARN) in {(f.id, f.severity) for f in found}


@pytest.mark.parametrize(("least", "said"), [(580, []), (581, [Severity.FAIL]), (500, [])], ids=str)
def test_an_oldest_driver_that_somebody_has_set_holds_whatever_cuda_it_runs(
    least: int, said: list[Severity]
) -> None:
    found = judge(NODE, job_for(NODE), Limits(driver_for_cuda_13=least))
    assert [f.severity for f in found if f.id == "gpu.cuda"] == said


def test_there_may_be_nothing_to_judge() -> None:
    assert judge((), Workload(), Limits()) == ()
