"""Each threshold at its value, just below and just above."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest

from distrun.checks.limits import Limits
from distrun.checks.rule import Severity
from distrun.probe.snapshot import GpuProcess, InfinibandPort, Node, NvLink
from tests.unit.checks.bases import findings, job_for, with_field
from tests.unit.checks.cases import FAIL, INFO, LAPTOP, NODE, NODES, WARN
from tests.unit.checks.deep_cases import MEASURED
from tests.unit.checks.host_cases import NO_IB, ROCE

LIMITS = Limits()
FINE = None
MIB, GIB = 1 << 20, 1 << 30
GPU3 = "0.nvml.gpus.3."
_OLD_CUDA = {
    major: with_field(
        with_field(NODE, "0.nvml.cuda_driver_version", None), "0.software.torch_cuda", f"{major}.0"
    )
    for major in (11, 12, 13)
}
_BUSY = with_field(NODE, GPU3 + "pcie_generation", 3)
_GPU_24 = with_field(NODE, GPU3 + "memory_total_nbytes", 24 * GIB)
_PORT = InfinibandPort("mlx5_3", 1, "4: ACTIVE", "5: LinkUp", "400 Gb/sec", "InfiniBand", 0)


class Edge(NamedTuple):
    """Values of one field about a limit, each with what is said of it."""

    limit: str
    rule: str
    path: str
    says: dict[Any, Severity | None]
    base: tuple[Node, ...] = NODE
    job: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it
    wrap: Any = staticmethod(lambda value: value)


def _link(errors: int) -> NvLink:
    return NvLink(7, True, errors={"crc_flit": errors})


def _process(used_nbytes: int) -> tuple[GpuProcess, ...]:
    return (GpuProcess(4242, used_nbytes),)


EDGES = (
    *(Edge(f"driver_for_cuda_{major}", "gpu.cuda", "0.nvml.driver_version",
           {f"{least - 1}.99": FAIL, f"{least}.0": FINE, f"{least + 1}.0": FINE}, _OLD_CUDA[major])
      for major, least in ((11, 450), (12, 525), (13, 580))),
    Edge("remapped_rows_max", "gpu.remap.count", GPU3 + "remapped_rows_uncorrected",
         {511: FINE, 512: FINE, 513: FAIL}),
    Edge("retired_pages_warn", "gpu.retired_pages", GPU3 + "retired_pages",
         {9: FINE, 10: WARN, 11: WARN}),
    Edge("gpu_used_warn_nbytes", "gpu.memory", GPU3 + "memory_used_nbytes",
         {GIB - 1: FINE, GIB: FINE, GIB + 1: WARN}),
    Edge("gpu_used_warn_percent", "gpu.memory", GPU3 + "memory_used_nbytes",
         {int(0.48 * GIB): FINE, int(0.48 * GIB) + 1: WARN}, _GPU_24),
    Edge("gpu_process_ignored_nbytes", "gpu.processes", GPU3 + "processes",
         {14_999_999: FINE, 15_000_000: FINE, 15_000_001: WARN}, NODE, {}, _process),
    Edge("bar1_warn_nbytes", "gpu.bar1", GPU3 + "bar1_total_nbytes",
         {256 * MIB - 1: WARN, 256 * MIB: WARN, 256 * MIB + 1: FINE}),
    Edge("temperature_margin_c", "gpu.temperature", GPU3 + "temperature_c",
         {83: FINE, 84: WARN, 85: WARN, 86: FAIL, 89: FAIL}),
    Edge("pcie_busy_percent", "gpu.pcie.generation", GPU3 + "utilization_percent",
         {49: FINE, 50: WARN, 51: WARN}, _BUSY),
    Edge("nvlink_errors_warn", "gpu.nvlink.errors", GPU3 + "nvlinks.7",
         {14: FINE, 15: FINE, 16: WARN}, NODE, {}, _link),
    Edge("shm_fail_nbytes", "host.shm", "0.host.shm_free_nbytes",
         {64 * MIB - 1: FAIL, 64 * MIB: FAIL, 64 * MIB + 1: WARN}),
    Edge("shm_warn_nbytes", "host.shm", "0.host.shm_free_nbytes",
         {GIB - 1: WARN, GIB: WARN, GIB + 1: FINE}),
    Edge("nofile_per_rank", "host.nofile", "0.host.nofile",
         {512 + 2 * 2000 - 1: FAIL, 512 + 2 * 2000: WARN}, NODES, {"nproc_per_node": 500}),
    Edge("nofile_base", "host.nofile", "0.host.nofile",
         {512 + 2 - 1: FAIL, 512 + 2: FINE, 512 + 3: FINE}, LAPTOP, {"nproc_per_node": 1}),
    Edge("nofile_warn", "host.nofile", "0.host.nofile",
         {65_535: WARN, 65_536: FINE, 65_537: FINE, -1: FINE}, NODES),
    Edge("nproc_per_rank", "host.nproc", "0.host.nproc",
         {512 + 8 * 256 - 1: WARN, 512 + 8 * 256: FINE, 512 + 8 * 256 + 1: FINE}),
    Edge("nproc_least_per_rank", "host.nproc", "0.host.nproc",
         {100 + 8 - 1: FAIL, 100 + 8: WARN},
         with_field(LAPTOP, "0.host.nproc_used", 100), {"nproc_per_node": 1}),
    Edge("nproc_base", "host.nproc", "0.host.nproc",
         {0: WARN, 767: WARN, 768: FINE, -1: FINE}, LAPTOP, {"nproc_per_node": 1}),
    Edge("cores_per_rank_warn", "host.cpu", "0.host.usable_cores",
         {7.9: WARN, 15.9: WARN, 16.0: FINE}),
    Edge("cores_per_rank_warn", "host.cpu", "0.host.usable_cores",
         {1.9: INFO, 2.0: FINE}, LAPTOP),
    Edge("memory_per_rank_fail_nbytes", "host.memory", "0.host.memory_available_nbytes",
         {2 * 128 * MIB - 1: FAIL, 2 * 128 * MIB: WARN, 2 * 128 * MIB + 1: WARN}, LAPTOP),
    Edge("memory_per_rank_warn_nbytes", "host.memory", "0.host.memory_available_nbytes",
         {2 * 256 * MIB - 1: WARN, 2 * 256 * MIB: FINE, 2 * 256 * MIB + 1: FINE}, LAPTOP),
    Edge("runs_dir_free_percent", "host.runs_dir", "0.host.runs_dir_free_nbytes",
         {700 * GIB - 1: WARN, 700 * GIB: FINE, 700 * GIB + 1: FINE}),
    Edge("nic_speed_warn_mbps", "host.nic.speed", "0.host.nics.0.speed_mbps",
         {9_999: WARN, 10_000: FINE, 10_001: FINE}, NO_IB),
    Edge("roce_mtu", "host.mtu", "0.host.nics.0.mtu",
         {4_199: WARN, 4_200: FINE, 4_201: FINE}, ROCE),
    Edge("link_downed_warn", "host.infiniband.flaps", "0.host.infiniband.3.link_downed",
         {4: FINE, 5: FINE, 6: WARN}),
    Edge("clock_offset_s", "nodes.clock", "2.host.clock_offset_s",
         {0.100: FINE, 0.1009: FINE, 0.102: WARN, -0.1009: FINE, -0.102: WARN}, NODES),
    Edge("matmul_share_warn", "deep.matmul", "0.measured.ranks.3.matmul_flops",
         {559.9e12: WARN, 560e12: FINE, 560.1e12: FINE}, MEASURED),
    Edge("copy_share_warn", "deep.copy", "0.measured.ranks.3.copy_bandwidth",
         {43.9e9: WARN, 44e9: FINE, 44.1e9: FINE}, MEASURED),
)  # fmt: skip
WITHOUT_EDGE = {"xids_fatal": "a list of numbers, tested below"}


def _points() -> list[Any]:
    return [
        pytest.param(edge, value, said, id=f"{edge.limit}: {value} {said.name if said else 'fine'}")
        for edge in EDGES
        for value, said in edge.says.items()
    ]


@pytest.mark.parametrize(("edge", "value", "said"), _points())
def test_a_limit_holds_to_the_last_unit(edge: Edge, value: Any, said: Severity | None) -> None:
    nodes = with_field(edge.base, edge.path, edge.wrap(value))
    found = findings(nodes, edge.rule, job_for(nodes, **edge.job))
    told = [f.severity for f in found if f.severity is not Severity.SKIP]
    assert told == ([said] if said else [])


def test_no_limit_is_without_its_boundary() -> None:
    names = {field.name for field in dataclasses.fields(Limits)}
    assert {edge.limit for edge in EDGES} | WITHOUT_EDGE.keys() == names


@pytest.mark.parametrize("code", LIMITS.xids_fatal)
def test_an_xid_of_hardware_fails(code: int) -> None:
    from distrun.probe.snapshot import Xid

    for number, severity in ((code, FAIL), (13, WARN)):
        nodes = with_field(NODE, "0.host.xids", (Xid(number, "0000:4d:00.0", 5.0, "x"),))
        (found,) = findings(nodes, "gpu.xid")
        assert (found.severity, found.device) == (severity, "GPU 3 0000:4d:00.0")
