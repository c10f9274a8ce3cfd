"""JSON and JUnit of a check: stable keys, and XML whatever a process calls itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as xml

import pytest

from distrun.api.check import CheckReport, Severity, judged
from distrun.checks.registry import RULES
from distrun.checks.rule import matches
from distrun.cli.check.formats import as_json, as_junit, snapshots
from distrun.cli.check.report import as_markdown
from distrun.probe.snapshot import GpuProcess, Measured, MeasuredRank, Node, Nvml
from distrun.spec.job import Settings
from distrun.spec.snapshot import read_snapshots
from tests.unit.checks.bases import recorded, with_field

EVIL = "\x1b[31m</testcase>]]>&\x00\ud800 | `rm` <b>*x*</b>"


def a_report(name: str = "one_lost_gpu") -> CheckReport:
    return judged(recorded(name), Settings())


def an_evil_report() -> CheckReport:
    processes = (GpuProcess(4242, 40 << 30, EVIL, EVIL),)
    nodes = with_field(recorded("healthy_8xh100"), "0.nvml.gpus.3.processes", processes)
    return judged(nodes, Settings())


def test_the_keys_of_json_are_these() -> None:
    report = json.loads(as_json(a_report()))
    assert set(report) == {"schema", "exit_code", "job", "findings", "nodes"}
    assert set(report["job"]) == {"nproc_per_node", "nnodes", "uses_gpus", "master_port"}
    for finding in report["findings"]:
        assert set(finding) == {
            *("id", "severity", "node", "device", "observed", "expected", "why", "fix", "source")
        }
        assert finding["severity"] in Severity.__members__
    assert {"name", "taken_at", "nvml", "host", "software", "schema"} <= set(report["nodes"][0])


def test_snapshots_are_read_back_as_they_were(tmp_path: Path) -> None:
    nodes = list(an_evil_report().nodes)
    (tmp_path / "s.json").write_text(snapshots(nodes))
    (read,) = read_snapshots(tmp_path / "s.json", Node)
    harmless = EVIL.replace("\ud800", "?")  # half a character is none
    gpus = read.nvml.gpus
    assert gpus[3].processes == (GpuProcess(4242, 40 << 30, harmless, harmless),)
    assert replace(read, nvml=nodes[0].nvml) == nodes[0]


@pytest.mark.parametrize("strict", [False, True])
def test_junit_is_xml_whatever_a_process_is_called(strict: bool) -> None:
    report = an_evil_report()
    (warned,) = [f for f in report.findings if f.severity == Severity.WARN]
    suites = xml.fromstring(as_junit(report, strict=strict).encode(errors="replace"))
    cases = list(suites.iter("testcase"))
    assert {case.get("classname") for case in cases} == {rule.id for rule in RULES}
    failed = [case.get("classname") for case in cases if case.find("failure") is not None]
    assert failed == ([warned.id] if strict else [])


def test_a_skipped_rule_is_skipped_in_junit() -> None:
    report = a_report("mixed_drivers")
    skipped = {f.id for f in report.findings if f.severity == Severity.SKIP}
    deep = {rule.id for rule in RULES if rule.id.startswith("deep.")}
    assert {of for of, state in states(report) if state == "skipped"} == skipped | deep != deep


def states(report: CheckReport) -> set[tuple[str, str]]:
    """Return each rule with what its test cases are: passed, skipped, failure, system-out."""
    cases = xml.fromstring(as_junit(report, strict=False)).iter("testcase")
    return {(c.get("classname", ""), next((e.tag for e in c), "passed")) for c in cases}


def passed(report: CheckReport) -> set[str]:
    return {of for of, state in states(report) if state == "passed"}


def ids(*prefixes: str) -> set[str]:
    return {rule.id for rule in RULES if rule.id.startswith(prefixes)}


def test_without_a_driver_no_rule_of_gpus_is_passed() -> None:
    report = a_report("vm_without_nvml")
    assert not passed(report) & ids("gpu.", "deep.")
    assert passed(report) & ids("nodes.") == {"nodes.unreachable"}
    assert "host.shm" in passed(report)


def test_a_driver_that_counts_no_gpu_is_passed_alone() -> None:
    nodes = with_field(recorded("vm_without_nvml"), "0.nvml", Nvml())
    assert passed(judged(nodes, Settings())) & ids("gpu.") == {"gpu.driver"}


def test_one_node_is_compared_with_none_and_several_are() -> None:
    assert passed(a_report("healthy_8xh100")) & ids("nodes.") == {"nodes.unreachable"}
    assert "nodes.kernel" in passed(a_report("loopback_pair"))


@pytest.mark.parametrize("ignore", [("host.*",), ("host.shm", "host.cpu")])
def test_what_is_ignored_is_not_passed(ignore: tuple[str, ...]) -> None:
    report = judged(recorded("vm_without_nvml"), Settings(), ignore)
    left_out = {rule.id for rule in RULES for pattern in ignore if matches(pattern, rule.id)}
    assert {(of, "skipped") for of in left_out} == {s for s in states(report) if s[0] in left_out}


def test_a_node_that_did_not_answer_is_skipped_by_every_rule() -> None:
    nodes = (*recorded("healthy_8xh100"), *recorded("loopback_pair"))
    nodes = with_field(nodes, "2.problem", EVIL)
    suite = xml.fromstring(as_junit(judged(nodes, Settings()), strict=False))
    names = {c.get("name") for c in suite.iter("testcase") if c.find("skipped") is not None}
    assert {f"host.shm {nodes[2].name}", f"nodes.kernel {nodes[2].name}"} <= names
    assert f"nodes.unreachable {nodes[2].name}" not in names
    assert suite[0].get("skipped") == str(len(list(suite.iter("skipped"))))


def test_with_no_answer_at_all_nothing_is_passed() -> None:
    nodes = with_field(recorded("vm_without_nvml"), "0.problem", "no answer")
    report = judged(nodes, Settings())
    assert passed(report) == set()
    assert ("nodes.unreachable", "failure") in states(report)


def test_what_a_small_job_measured_is_passed_as_far_as_it_came() -> None:
    ranks = (MeasuredRank(0, "cpu", 1e9, None),)
    for measured, expected in (
        (Measured(ranks=ranks, all_reduce_right=True), {"deep.job", "deep.matmul", "deep.pairs"}),
        (Measured(problem="it ended with 1"), set()),
    ):
        nodes = with_field(recorded("vm_without_nvml"), "0.measured", measured)
        assert passed(judged(nodes, Settings())) & ids("deep.") == expected


def test_a_report_in_markdown_stays_in_its_cells() -> None:
    lines = as_markdown(an_evil_report()).splitlines()
    rows = [line.replace("\\|", "") for line in lines if line.startswith("| node1 | ")]
    assert {row.count("|") for row in rows[1:]} == {9}
    assert "\x1b" not in "".join(lines)
    assert not any("<b>" in line.replace("\\<", "") for line in lines)
