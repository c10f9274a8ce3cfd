"""Findings as lines: what is the same is said once, and where it is, in few words."""

from __future__ import annotations

import pytest

from distrun.api.check import CheckReport, Finding, Severity, Workload
from distrun.cli.check.findings import count, lines_of, summary, where
from distrun.cli.screen.console import plain
from distrun.probe.snapshot import Host, Node, Nvml, Software

GPUS = [f"GPU {index} GPU-{index:08x} 0000:{index:02x}:00.0" for index in range(8)]


def finding(node: str, device: str = "", observed: str = "broken", **fields: str) -> Finding:
    severity = Severity[fields.pop("severity", "FAIL")]
    texts = {"id": "gpu.x", "expected": "whole", "why": "", "fix": "mend it", "source": ""}
    return Finding(severity=severity, node=node, device=device, observed=observed, **texts | fields)


def report(*findings: Finding, nnodes: int = 2) -> CheckReport:
    nodes = tuple(Node(f"n{i}", "", Nvml(), Host(), Software()) for i in range(nnodes))
    return CheckReport(nodes, Workload(), findings, 1)


@pytest.mark.parametrize(
    ("places", "nnodes", "text"),
    [
        ([("n0", "")], 1, ""),
        ([("n0", "/dev/shm")], 1, "/dev/shm"),
        ([("n0", GPUS[3])], 1, GPUS[3]),
        ([("n0", GPUS[3]), ("n0", GPUS[3])], 1, GPUS[3]),
        ([("n0", gpu) for gpu in GPUS[:4]], 1, "GPUs 0-3"),
        ([("n0", GPUS[i]) for i in (0, 1, 5, 7)], 2, "GPUs 0-1, 5, 7 on n0"),
        ([("n0", "eth0"), ("n0", "eth1")], 1, "eth0, eth1"),
        ([("n1", "")], 2, "n1"),
        ([("n0", ""), ("n1", "")], 2, "both nodes"),
        ([("n0", "eth0"), ("n1", "eth0")], 3, "eth0 on n0, n1"),
        ([(f"n{i}", "eth0") for i in range(4)], 4, "eth0 on all 4 nodes"),
        ([(f"n{i}", "eth0") for i in range(6)], 9, "eth0 on n0, n1, n2 and 3 more"),
        ([("n0", GPUS[0]), ("n0", GPUS[1]), ("n1", "x")], 2, "GPUs 0-1 on n0; x on n1"),
        ([("", "")], 3, ""),
    ],
)
def test_places_are_told_in_few_words(
    places: list[tuple[str, str]], nnodes: int, text: str
) -> None:
    assert where(places, nnodes) == text


def test_the_same_on_many_devices_is_one_line_and_what_differs_is_another() -> None:
    same = [finding("n0", gpu) for gpu in GPUS[:4]] + [finding("n1", gpu) for gpu in GPUS[:4]]
    other = finding("n1", GPUS[7], observed="very broken")
    lines = lines_of(report(*same, other))
    assert [line.text for line in lines] == [
        "GPUs 0-3 on both nodes: broken, expected whole",
        f"{GPUS[7]} on n1: very broken, expected whole",
    ]


def test_a_node_that_the_text_names_is_not_named_twice() -> None:
    (line,) = lines_of(report(finding("n1", observed="1 of 2 nodes runs 1.0; n1 runs 2.0")))
    assert line.text == "1 of 2 nodes runs 1.0; n1 runs 2.0, expected whole"


def test_what_has_nothing_to_expect_says_what_was_seen() -> None:
    (line,) = lines_of(report(finding("n0", expected="", observed="seen"), nnodes=1))
    assert line.text == "seen"


@pytest.mark.parametrize(
    ("severities", "text"),
    [
        ([], "no problems found"),
        (["SKIP"], "no problems found"),
        (["FAIL"], "1 failure"),
        (["FAIL", "WARN", "WARN", "INFO", "SKIP"], "1 failure, 2 warnings, 1 note"),
    ],
)
def test_a_summary_counts_lines(severities: list[str], text: str) -> None:
    findings = [
        finding("n0", observed=str(number), severity=severity)
        for number, severity in enumerate(severities)
    ]
    assert summary(lines_of(report(*findings))) == text


@pytest.mark.parametrize(("number", "text"), [(0, ""), (1, "1 fact"), (2, "2 facts")])
def test_a_count_is_spelled(number: int, text: str) -> None:
    assert count(number, "fact") == text


def test_no_name_moves_the_cursor() -> None:
    assert plain("a\x1b[2Jb\r\nc\x00\u202e") == "a�[2Jb��c��"
    assert plain("größe · 30 °C") == "größe · 30 °C"
