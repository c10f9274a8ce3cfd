"""The probe and the rules over a real driver, where there is a GPU."""

from __future__ import annotations

import pytest

from distrun.checks.judge import judge
from distrun.checks.limits import Limits
from distrun.checks.rule import Workload
from distrun.probe.node import read_node
from tests.fakes.driver import has_real_driver

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_real_driver(), reason="there is no NVIDIA driver"),
]


def test_a_real_driver_tells_each_fact_or_says_why_not() -> None:
    nvml = read_node(want_gpus=True).nvml
    assert nvml.problem == ""
    assert nvml.driver_version
    assert nvml.present
    for gpu in nvml.present:
        assert gpu.name
        assert gpu.uuid.startswith("GPU-")
        assert gpu.memory_total_nbytes
        assert 0 < (gpu.temperature_c or 0) < 120
        assert all(reason.isidentifier() for reason in gpu.missing.values())  # NVML's own words


def test_a_real_machine_is_judged() -> None:
    node = read_node(want_gpus=True)
    found = judge([node], Workload(len(node.nvml.present), uses_gpus=True), Limits())
    assert "gpu.driver" not in {finding.id for finding in found}
    assert all(finding.observed for finding in found)
