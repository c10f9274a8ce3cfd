"""What a comparison over nodes says, word for word."""

from __future__ import annotations

import pytest

from distrun.checks.nodes.compare import Fact, compare
from distrun.checks.rule import Observation, Severity
from distrun.probe.snapshot import Host, Node, Nvml, Software


def nodes_with(*drivers: str | None) -> list[Node]:
    return [
        Node(f"node{n}", "", Nvml(driver_version=driver), Host(), Software())
        for n, driver in enumerate(drivers)
    ]


def compared(*drivers: str | None) -> list[Observation]:
    fact = Fact(
        lambda node: node.nvml.driver_version, noun="driver", missing=lambda node: "NoPermission"
    )
    return list(compare(nodes_with(*drivers), fact, Severity.WARN))


@pytest.mark.parametrize(
    ("drivers", "says", "expected", "node"),
    [
        (
            ("580.159", "580.159", "575.57", "580.159"),
            "3 of 4 nodes run driver 580.159; node2 runs 575.57",
            "driver 580.159",
            "node2",
        ),
        (
            ("580", "575", "580", "575", "580"),
            "3 of 5 nodes run driver 580; node1, node3 run 575",
            "driver 580",
            "",
        ),
        (
            ("580", "575", "580", "570"),
            "2 of 4 nodes run driver 580; node1 runs 575; node3 runs 570",
            "driver 580",
            "",
        ),
        (
            ("580", "575"),
            "node0 runs driver 580; node1 runs driver 575",
            "the same on all nodes",
            "",
        ),
        (
            ("580", "575", "580", "575"),
            "node0, node2 run driver 580; node1, node3 run driver 575",
            "the same on all nodes",
            "",
        ),
        (
            ("580", "575", "570"),
            "node0 runs driver 580; node1 runs driver 575; node2 runs driver 570",
            "the same on all nodes",
            "",
        ),
    ],
)
def test_the_minority_is_named_and_a_tie_names_both_sides(
    drivers: tuple[str, ...], says: str, expected: str, node: str
) -> None:
    (found,) = compared(*drivers)
    assert (found.severity, found.observed) == (Severity.WARN, says)
    assert (found.expected, found.node, found.device) == (expected, node, "")


@pytest.mark.parametrize("drivers", [(), ("580",), ("580", "580"), ("",) * 3])
def test_where_all_agree_nothing_is_said(drivers: tuple[str, ...]) -> None:
    assert compared(*drivers) == []


def test_a_node_that_does_not_know_is_skipped_and_the_others_are_compared() -> None:
    skipped, found = compared("580", None, "575", "580")
    assert (skipped.severity, skipped.observed) == (Severity.SKIP, "NoPermission")
    assert skipped.node == "node1"
    assert found.observed == "2 of 3 nodes run driver 580; node2 runs 575"


def test_one_node_that_knows_is_compared_with_nobody() -> None:
    assert [seen.severity for seen in compared("580", None, None)] == [Severity.SKIP] * 2


def test_of_many_nodes_a_few_are_named() -> None:
    (found,) = compared(*["580"] * 40, *["575"] * 20)
    assert found.observed == (
        "40 of 60 nodes run driver 580; node40, node41, node42, node43, node44, node45, node46"
        " and 13 more run 575"
    )
