"""All that is found on each recorded machine, and nothing beside it."""

from __future__ import annotations

from typing import Any

import pytest

from distrun.checks.rule import Severity
from tests.unit.checks.bases import SNAPSHOTS, findings, job_for, recorded
from tests.unit.checks.cases import FAIL, INFO, WARN

SKIP = Severity.SKIP
EXPECTED: dict[str, list[tuple[str, Severity, str]]] = {
    "healthy_8xh100": [],
    "a100_mig": [
        *[("gpu.mig", WARN, "node1")] * 4,
        ("gpu.ecc.sram", SKIP, "node1"),
        ("gpu.pcie.generation", SKIP, "node1"),
    ],
    "mixed_drivers": [
        ("gpu.cuda", FAIL, "node2"),
        ("nodes.driver", WARN, ""),
        ("nodes.reach", SKIP, "node1"),
        ("nodes.reach", SKIP, "node2"),
        ("nodes.clock", SKIP, "node1"),
        ("nodes.clock", SKIP, "node2"),
    ],
    "one_lost_gpu": [
        ("gpu.count", FAIL, "node1"),
        ("gpu.lost", FAIL, "node1"),
        ("gpu.xid", FAIL, "node1"),
    ],
    "vm_without_nvml": [("gpu.driver", INFO, "vm1")],
    "loopback_pair": [
        ("host.hostname", FAIL, "node1"),
        ("host.hostname", FAIL, "node2"),
        ("nodes.reach", SKIP, "node1"),
        ("nodes.reach", SKIP, "node2"),
        ("nodes.clock", SKIP, "node1"),
        ("nodes.clock", SKIP, "node2"),
    ],
}
OF_A_CPU_JOB: dict[str, list[tuple[str, Severity, str]]] = {
    "a100_mig": [
        *[("gpu.mig", INFO, "node1")] * 4,
        ("gpu.ecc.sram", SKIP, "node1"),
        ("gpu.pcie.generation", SKIP, "node1"),
    ],
    "mixed_drivers": [
        ("gpu.cuda", INFO, "node2"),
        ("nodes.driver", INFO, ""),
        ("nodes.reach", SKIP, "node1"),
        ("nodes.reach", SKIP, "node2"),
        ("nodes.clock", SKIP, "node1"),
        ("nodes.clock", SKIP, "node2"),
    ],
    "one_lost_gpu": [("gpu.lost", INFO, "node1"), ("gpu.xid", INFO, "node1")],
}


def found_on(name: str, **job: Any) -> list[tuple[str, Severity, str]]:
    nodes = recorded(name)
    return [(f.id, f.severity, f.node) for f in findings(nodes, job=job_for(nodes, **job))]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recorded_machine_is_judged_as_it_was_made(name: str) -> None:
    assert found_on(name) == EXPECTED[name]


@pytest.mark.parametrize("name", OF_A_CPU_JOB)
def test_for_a_job_on_cpus_the_same_machine_is_milder_judged(name: str) -> None:
    assert found_on(name, uses_gpus=False) == OF_A_CPU_JOB[name]


def test_no_recorded_machine_is_left_out() -> None:
    assert {file.stem for file in SNAPSHOTS.glob("*.json")} == set(EXPECTED)


def test_the_lost_gpu_is_named_with_its_xid() -> None:
    found = findings(recorded("one_lost_gpu"))
    assert [(f.device, f.observed) for f in found] == [
        ("", "3 usable GPUs"),
        ("GPU 2", "gives no answer: GpuIsLost"),
        ("0000:3c:00.0", "Xid 79 7 min ago: GPU has fallen off the bus"),
    ]


def test_of_two_drivers_neither_is_the_odd_one_and_the_older_cannot_run_this_torch() -> None:
    found = [f.observed for f in findings(recorded("mixed_drivers")) if f.severity >= WARN]
    assert found == [
        "driver 575.57.08 runs CUDA 12.9",
        "node1 runs driver 580.159.03; node2 runs driver 575.57.08",
    ]
