"""Each rule passes a healthy machine, fails one with one fault, and skips what is not known."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from distrun.checks.registry import RULES, RULES_BY_ID
from distrun.checks.rule import Severity
from distrun.probe.snapshot import Node
from tests.unit.checks.bases import findings, job_for, with_field, without_field
from tests.unit.checks.cases import LAPTOP, NODE, NODES, Case, Unread
from tests.unit.checks.deep_cases import DEEP_CASES, SILENT_WHEN_MEASURED
from tests.unit.checks.gpu_cases import GPU_CASES, SILENT_ON_GPUS, UNREAD_ON_GPUS
from tests.unit.checks.host_cases import HOST_CASES, SILENT_ON_HOSTS, UNREAD_ON_HOSTS
from tests.unit.checks.nodes_cases import NODES_CASES, SILENT_OVER_NODES, UNREAD_OVER_NODES

CASES = (*GPU_CASES, *HOST_CASES, *NODES_CASES, *DEEP_CASES)
UNREAD = (*UNREAD_ON_GPUS, *UNREAD_ON_HOSTS, *UNREAD_OVER_NODES)
SILENT = (*SILENT_ON_GPUS, *SILENT_ON_HOSTS, *SILENT_OVER_NODES, *SILENT_WHEN_MEASURED)
NEVER_SKIPS = {
    "gpu.driver": "NVML's silence is what it tells of",
    "gpu.count": "NVML's silence is gpu.driver's",
    "gpu.lost": "NVML's silence is gpu.driver's",
    "gpu.fabric.health": "one of two facts will do",
    "host.infiniband": "a state that is not there is tested by itself",
    "host.infiniband.flaps": "a port has no `missing`; tested by itself",
    "host.environ": "the environment is always there",
    "nodes.unreachable": "the probe's silence is what it tells of",
    "nodes.reach": "tested by itself",
    "nodes.gpu.count": "tested by itself",
    "nodes.gpu.model": "a name is a text; tested by itself",
    "nodes.infiniband.count": "a port that is not known to be active is not counted",
    "nodes.infiniband.rate": "a port has no `missing`; tested by itself",
    "nodes.environ": "the environment is always there",
    "host.port": "a port was tried, or nobody asked for it",
    "deep.job": "without --deep there is nothing to judge, and nobody asked",
    "deep.matmul": "as deep.job",
    "deep.copy": "as deep.job",
    "deep.pairs": "as deep.job",
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rule_sees_the_one_field_that_is_wrong(case: Case) -> None:
    job = job_for(case.base, **case.job)
    wrong = with_field(case.base, case.path, case.value)
    before = {(f.severity, f.observed) for f in findings(case.base, case.rule, job)}
    found = [f for f in findings(wrong, case.rule, job) if (f.severity, f.observed) not in before]
    told = [f for f in found if f.severity is not Severity.SKIP]
    assert [f.severity for f in told] == [case.severity]
    assert case.says in told[0].observed
    assert told[0].expected != told[0].observed


@pytest.mark.parametrize("case", UNREAD, ids=str)
def test_a_fact_that_could_not_be_read_is_skipped_with_its_reason(case: Unread) -> None:
    nodes = without_field(case.base, case.path, "NoPermission")
    skipped = [f for f in findings(nodes, case.rule) if f.severity is Severity.SKIP]
    (found,) = [f for f in skipped if "NoPermission" in f.observed]
    assert found.node == nodes[int(case.path[0])].name


@pytest.mark.parametrize(("rule", "path", "value", "base"), SILENT)
def test_what_is_near_a_fault_and_none_is_left_alone(
    rule: str, path: str, value: Any, base: tuple[Node, ...]
) -> None:
    nodes = with_field(base, path, value)
    told = [f for f in findings(nodes, rule, job_for(base)) if f.severity is not Severity.SKIP]
    assert told == []


def test_no_rule_is_untested() -> None:
    ids = {rule.id for rule in RULES}
    assert {case.rule for case in CASES} == ids
    assert {case.rule for case in UNREAD} | NEVER_SKIPS.keys() == ids


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_rule_says_why_it_matters_what_cures_it_and_where_it_comes_from(rule: Any) -> None:
    assert re.fullmatch(r"(gpu|host|nodes|deep)(\.[a-z0-9_]+)+", rule.id)
    assert all((rule.title, rule.source))
    assert rule.why.endswith((".", '".'))
    assert len(rule.why.split()) >= 5
    assert rule.fix
    assert rule.gpus_only or not rule.id.startswith("gpu.")


def test_what_matters_to_jobs_on_gpus_alone() -> None:
    others = {rule.id for rule in RULES if rule.gpus_only and not rule.id.startswith("gpu.")}
    assert others == {
        *("host.peermem", "host.numa_balancing", "nodes.driver", "nodes.nccl", "nodes.topology"),
        *("nodes.gpu.count", "nodes.gpu.model", "nodes.gpu.memory", "nodes.gpu.vbios"),
        *("nodes.gpu.ecc", "nodes.gpu.power_limit", "nodes.fabric", "nodes.infiniband.count"),
        *("nodes.infiniband.rate", "deep.copy"),
    }


def test_no_two_rules_share_an_id() -> None:
    assert len(RULES_BY_ID) == len(RULES)
    assert Counter(rule.title for rule in RULES).most_common(1)[0][1] == 1


@pytest.mark.parametrize("base", [NODE, NODES, NODE * 2, LAPTOP], ids=["1", "4", "2", "laptop"])
def test_a_healthy_machine_is_neither_warned_of_nor_failed(base: tuple[Node, ...]) -> None:
    assert [f for f in findings(base) if f.severity >= Severity.WARN] == []


def test_of_a_healthy_server_nothing_is_said() -> None:
    assert findings(NODE) == findings(NODES) == []


def test_all_that_is_said_of_a_laptop_before_a_launch_is_information() -> None:
    said = {(f.id, f.severity) for f in findings(LAPTOP, quick=True)}
    assert said == {("gpu.driver", Severity.INFO), ("host.shm", Severity.INFO)}
