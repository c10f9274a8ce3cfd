"""JSON and JUnit of a check: stable keys, and XML whatever a process calls itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as xml

import pytest

from distrun.api.check import CheckReport, Severity, judged
from distrun.checks.registry import RULES
from distrun.cli.check_formats import as_json, as_junit, snapshots
from distrun.cli.check_report import as_markdown
from distrun.probe.snapshot import GpuProcess, Node
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
    suite = xml.fromstring(as_junit(report, strict=False))
    cases = [c for c in suite.iter("testcase") if c.find("skipped") is not None]
    assert {case.get("classname") for case in cases} == skipped != set()


def test_a_report_in_markdown_stays_in_its_cells() -> None:
    lines = as_markdown(an_evil_report()).splitlines()
    rows = [line.replace("\\|", "") for line in lines if line.startswith("| node1 | ")]
    assert {row.count("|") for row in rows[1:]} == {9}
    assert "\x1b" not in "".join(lines)
    assert not any("<b>" in line.replace("\\<", "") for line in lines)
