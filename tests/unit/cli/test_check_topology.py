"""The matrix of GPUs: as `nvidia-smi topo -m` has it, and where peer-to-peer is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distrun.api.check import CheckReport, Workload
from distrun.cli.check.topology import legend, matrices
from distrun.probe.snapshot import GpuPair, Host, Node, Nvml, Software


def report(*pairs: tuple[GpuPair, ...]) -> CheckReport:
    nodes = tuple(
        Node(f"n{i}", "", Nvml(pairs=own), Host(), Software()) for i, own in enumerate(pairs)
    )
    return CheckReport(nodes, Workload(), (), 0)


PAIR = GpuPair(0, 1, 50, 0, 0, 1, 0)


@pytest.mark.parametrize(
    ("pair", "cell"),
    [
        (PAIR, "SYS"),
        (replace(PAIR, topology=10), "PIX"),
        (replace(PAIR, topology=20), "PXB"),
        (replace(PAIR, topology=30), "PHB"),
        (replace(PAIR, topology=40), "NODE"),
        (replace(PAIR, topology=0), "INT"),
        (replace(PAIR, topology=None), "?"),
        (replace(PAIR, topology=99), "?"),
        (replace(PAIR, nvlinks=18), "NV18"),
        (replace(PAIR, p2p_read=4), "SYS!"),
        (replace(PAIR, p2p_write=1, nvlinks=4), "NV4!"),
        (replace(PAIR, p2p_read=None, p2p_write=None), "SYS"),
    ],
)
def test_a_pair_is_one_cell_both_ways(pair: GpuPair, cell: str) -> None:
    ((_, matrix),) = matrices(report((pair,)))
    assert matrix == (("GPU0", "X", cell), ("GPU1", cell, "X"))


def test_equal_matrices_of_several_nodes_are_one() -> None:
    other = replace(PAIR, topology=10)
    found = matrices(report((PAIR,), (PAIR,), (other,), ()))
    assert [nodes for nodes, _ in found] == [["n0", "n1"], ["n2"]]


def test_a_lost_gpu_has_no_row_and_many_have_short_heads() -> None:
    ((_, matrix),) = matrices(report((GpuPair(0, 2, 50),)))
    assert [row[0] for row in matrix] == ["GPU0", "GPU2"]
    sixteen = tuple(GpuPair(a, b, 50) for a in range(16) for b in range(a + 1, 16))
    ((_, matrix),) = matrices(report(sixteen))
    assert [row[0] for row in matrix] == [str(i) for i in range(16)]
    assert all(len(row) == 17 for row in matrix)


def test_the_legend_explains_what_is_there_and_nothing_else() -> None:
    ((_, matrix),) = matrices(report((replace(PAIR, p2p_read=4),)))
    assert list(legend(matrix)) == [
        "SYS = between sockets",
        "! = no peer-to-peer: NCCL goes through host memory",
    ]
