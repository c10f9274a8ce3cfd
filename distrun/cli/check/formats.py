"""The results of a check for programs: JSON, and JUnit's XML for test systems."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as xml

from distrun.api.check import RULES, CheckReport, Finding, Node, Severity
from distrun.api.not_judged import unread_nodes, why_not_judged

SCHEMA = 1
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot hold, even escaped."""


def as_json(report: CheckReport) -> str:
    """Return all of a report."""
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "exit_code": report.exit_code,
        "job": report.job,
        "findings": [
            {**vars(finding), "severity": finding.severity.name} for finding in report.findings
        ],
        "nodes": report.nodes,
    }
    return _dumped(found)


def snapshots(nodes: Sequence[Node]) -> str:
    """Return the snapshots of the nodes, for `--from`."""
    return _dumped(list(nodes))


def _dumped(data: object) -> str:
    return json.dumps(data, indent=1, default=vars) + "\n"  # converts dataclasses without copies


def as_junit(report: CheckReport, *, strict: bool) -> str:
    """Return a test case for each rule, and for each finding of one.

    A test case is skipped if its rule was ignored, or had no data: no GPUs, no answer.

    Args:
        report: The report.
        strict: A warning is a failed test too.
    """
    worst = Severity.WARN if strict else Severity.FAIL
    suite = xml.Element("testsuite", name="distrun check")
    for rule in RULES:
        found = [finding for finding in report.findings if finding.id == rule.id]
        unread = unread_nodes(rule, report)
        for finding in found:
            _add_case(suite, finding, worst)
        why = why_not_judged(rule, report)
        if unread and not why:
            _add_skipped(suite, rule.id, unread, "no answer")
        elif why and not found:
            _add_skipped(suite, rule.id, "", why)
        elif not found:
            _new_case(suite, rule.id, "")
    for attribute, tag in (("tests", "testcase"), ("failures", "failure"), ("skipped", "skipped")):
        suite.set(attribute, str(len(list(suite.iter(tag)))))
    suites = xml.Element("testsuites")
    suites.append(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + xml.tostring(suites, encoding="unicode")


def _new_case(suite: xml.Element, rule_id: str, place: str) -> xml.Element:
    name = _clean(f"{rule_id} {place}".strip())
    return xml.SubElement(suite, "testcase", classname=rule_id, name=name)


def _add_skipped(suite: xml.Element, rule_id: str, place: str, why: str) -> None:
    xml.SubElement(_new_case(suite, rule_id, place), "skipped", message=why)


def _add_case(suite: xml.Element, found: Finding, worst: Severity) -> None:
    case = _new_case(suite, found.id, " ".join(filter(None, (found.node, found.device))))
    text = f"{found.observed}, expected {found.expected}" if found.expected else found.observed
    if found.severity == Severity.SKIP:
        xml.SubElement(case, "skipped", message=_clean(text))
    elif found.severity >= worst:
        failure = xml.SubElement(case, "failure", message=_clean(text), type=found.severity.name)
        failure.text = _clean(f"{found.why}\nfix: {found.fix}\nsource: {found.source}")
    else:
        out = xml.SubElement(case, "system-out")
        out.text = _clean(f"{found.severity.name}: {text}\nfix: {found.fix}")


def _clean(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
