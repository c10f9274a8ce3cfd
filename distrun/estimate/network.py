"""How long a collective takes on a cluster: from measured curves, else from links and NICs.

The ranks of a group that are in one node share what the node sends: a group with L ranks in each
node of G, where G / L such groups send at once, has L / G of the node's NICs.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distrun.bandwidth import DEFINITIONS
from distrun.estimate.kinds import Kind
from distrun.estimate.work import Collective

_RING_PART = 0.85
"""Of the NICs' rate, in a ring over nodes: 365 of 400 GB/s busbw was measured on 4 nodes of 8 H200
with EFA (Stas Bekman, ML Engineering, network), less where the fabric is shared."""
_START_S = 20e-6
_HOP_S, _NODE_HOP_S = 1e-6, 5e-6
"""Latency of a call, of a hop inside a node, and of one between nodes (NCCL's tuning tables)."""
_STEPS = {"all_reduce": 2, "sendrecv": 0, "broadcast": 1}
"""Rounds of a ring; others have one."""


@dataclass(frozen=True)
class Curve:
    """Measured times of one op in one group.

    Attributes:
        op: A name of `bandwidth.DEFINITIONS`.
        world_size: Ranks of the group.
        nnodes: Nodes that they were on.
        points: Sizes in bytes, ascending, and times in seconds.
    """

    op: str
    world_size: int
    nnodes: int
    points: tuple[tuple[int, float], ...]

    def time_s(self, nbytes: int) -> float:
        """Return the time of a size: between two points log-log, beyond them by the last rate."""
        sizes = [size for size, _ in self.points]
        at = bisect.bisect_left(sizes, nbytes)
        if at == 0:
            return self.points[0][1]
        if at == len(sizes):
            size, time_s = self.points[-1]
            return time_s * nbytes / size
        (a, s), (b, t) = self.points[at - 1], self.points[at]
        part = math.log(nbytes / a) / math.log(b / a)
        return s * math.exp(part * math.log(t / s))


@dataclass(frozen=True)
class Cluster:
    """Nodes of equal GPUs, and how the job's mesh lies on them.

    Attributes:
        kind: Of the GPUs.
        nnodes: Nodes.
        nproc_per_node: Ranks of a node.
        curves: Measured by bench-comm.
    """

    kind: Kind
    nnodes: int
    nproc_per_node: int
    curves: tuple[Curve, ...] = ()

    @property
    def world_size(self) -> int:
        """All ranks."""
        return self.nnodes * self.nproc_per_node

    def together(self, group_size: int, stride: int) -> int:
        """Return how many ranks of a group are in one node."""
        return max(1, min(group_size, self.nproc_per_node // stride))

    def busbw(self, group_size: int, stride: int) -> float:
        """Return the bandwidth of a ring in bytes per second."""
        local = self.together(group_size, stride)
        if local == group_size:
            return self.kind.link_bytes_per_s
        nics = self.kind.nics * self.kind.nic_bytes_per_s
        share = nics * local / self.nproc_per_node
        return min(self.kind.link_bytes_per_s, share * _RING_PART)

    def time_s(self, one: Collective, stride: int) -> float:
        """Return the time of all calls of a collective of a step, one after another."""
        local = self.together(one.group_size, stride)
        nodes = -(-one.group_size // local)
        curve = nearest(self.curves, one.op, one.group_size, nodes)
        factor = DEFINITIONS[one.op].busbw_factor(one.group_size)
        if curve is not None:
            wanted = factor / DEFINITIONS[one.op].busbw_factor(curve.world_size)
            return one.count * curve.time_s(one.nbytes) * wanted
        hops = (one.group_size - nodes) * _HOP_S + (nodes * _NODE_HOP_S if nodes > 1 else 0)
        latency = _START_S + _STEPS.get(one.op, 1) * hops
        return one.count * (latency + one.nbytes * factor / self.busbw(one.group_size, stride))


def nearest(curves: Sequence[Curve], op: str, group_size: int, nodes: int) -> Curve | None:
    """Return the measured curve most like a group: inside a node, or between nodes, as it is."""
    alike = [c for c in curves if c.op == op and (c.nnodes > 1) == (nodes > 1)]
    return min(alike, key=lambda c: abs(math.log(c.world_size / group_size)), default=None)


def strides(mesh: Mapping[str, int]) -> dict[str, int]:
    """Return the distance of neighbours along each axis of a mesh, outermost first; `world`: 1."""
    found, inner = {"world": 1}, 1
    for axis, size in reversed(list(mesh.items())):
        found[axis] = inner
        inner *= size
    return found
