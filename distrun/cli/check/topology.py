"""How the GPUs of a node are connected, in the form of `nvidia-smi topo -m`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.api.check import CheckReport, Node

_NAMES = {0: "INT", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
_MEANING = {
    "NV#": "that many NVLinks",
    "INT": "on one board",
    "PIX": "one PCIe switch",
    "PXB": "several PCIe switches",
    "PHB": "the CPU's PCIe bridge",
    "NODE": "between bridges of one NUMA node",
    "SYS": "between sockets",
    "!": "no peer-to-peer: NCCL goes through host memory",
    "?": "not told",
}
_WIDE = 10
"""From so many GPUs on the heads are only numbers."""

Matrix = tuple[tuple[str, ...], ...]


def matrices(report: CheckReport) -> list[tuple[list[str], Matrix]]:
    """Return each matrix with the nodes that have it, for nodes with two or more GPUs."""
    found: dict[Matrix, list[str]] = {}
    for node in report.nodes:
        if node.nvml.pairs:
            found.setdefault(_matrix(node), []).append(node.name)
    return [(nodes, matrix) for matrix, nodes in found.items()]


def _matrix(node: Node) -> Matrix:
    """Return the rows, each begins with its head."""
    ends = sorted({end for pair in node.nvml.pairs for end in (pair.a, pair.b)})
    cells = {}
    for pair in node.nvml.pairs:
        known = "?" if pair.topology is None else _NAMES.get(pair.topology, "?")
        link = f"NV{pair.nvlinks}" if pair.nvlinks else known
        cells[pair.a, pair.b] = link + ("!" if pair.p2p_read or pair.p2p_write else "")
    heads = heads_of(ends)
    return tuple(
        (head, *("X" if a == b else cells.get((min(a, b), max(a, b)), "?") for b in ends))
        for head, a in zip(heads, ends, strict=True)
    )


def heads_of(ends: Sequence[int]) -> list[str]:
    """Return the names of the GPUs, shorter if there are many."""
    return [f"GPU{end}" if len(ends) < _WIDE else str(end) for end in ends]


def legend(matrix: Matrix) -> Iterator[str]:
    """Yield the meanings of the abbreviations in a matrix."""
    cells = {cell for row in matrix for cell in row[1:]} - {"X"}
    kinds = {"NV#" if cell.startswith("NV") else cell.removesuffix("!") for cell in cells}
    if any(cell.endswith("!") for cell in cells):
        kinds.add("!")
    for kind, meaning in _MEANING.items():
        if kind in kinds:
            yield f"{kind} = {meaning}"
