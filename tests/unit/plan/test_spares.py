"""Spare nodes that are emulated on this machine have GPUs of their own, and count."""

from __future__ import annotations

import pytest

from distrun.errors import MachineError, UsageError
from tests.unit.plan.test_layout import DEVICES, machine, planned


@pytest.mark.parametrize(
    ("gpus", "nproc", "shares"),
    [(3, 1, ["0", "1"]), (4, 1, ["0", "1"]), (8, 2, ["0,1", "2,3"])],
)
def test_the_gpus_of_a_node_are_as_many_as_its_ranks(
    gpus: int, nproc: int, shares: list[str]
) -> None:
    plan = planned(machine(gpus), nodes=2, spare=1, max_restarts=1)
    assert plan.nproc_per_node == nproc
    assert [node.environ[DEVICES] for node in plan.nodes] == shares


def test_gpus_that_do_not_go_round_are_refused_with_the_number_of_nodes() -> None:
    with pytest.raises(MachineError, match="cannot be divided among 3 nodes"):
        planned(machine(2), gpus="0,1", nodes=2, spare=1, max_restarts=1)


def test_spares_count_among_the_emulated_nodes() -> None:
    with pytest.raises(UsageError, match=r"--nodes 1 and --spare 200000 are above the limit of"):
        planned(machine(0), spare=200_000, max_restarts=1)
