"""Settings of NCCL and gloo that must be equal on all nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.checks.limits import Limits
from distrun.checks.nodes.compare import Fact, compare
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node

_OF_THE_NODE = {"NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "NCCL_IB_HCA"}
"""Device names, which may differ between nodes."""
_HARMLESS = ("NCCL_DEBUG", "NCCL_TOPO_", "NCCL_GRAPH_", "NCCL_HOSTID", "NCCL_CONF_FILE")
_AGREED = {
    *("NCCL_ALGO", "NCCL_PROTO", "NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "NCCL_SHM_DISABLE"),
    *("NCCL_IB_DISABLE", "NCCL_NET", "NCCL_NET_PLUGIN", "NCCL_MIN_NCHANNELS", "NCCL_BUFFSIZE"),
    *("NCCL_MAX_NCHANNELS", "NCCL_NVLS_ENABLE", "NCCL_MNNVL_ENABLE", "NCCL_CUMEM_ENABLE"),
}
"""If ranks differ in one of these, they wait for one another or do not connect."""


def _judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
    prefixes = ("NCCL_", "GLOO_") if job.uses_gpus else ("GLOO_",)
    names = {name for node in nodes for name in node.host.environ if name.startswith(prefixes)}
    for name in sorted(names):
        if not name.startswith(_HARMLESS):
            yield from compare(nodes, _setting(name), _severity(name, nodes))


def _setting(name: str) -> Fact:
    def read(node: Node) -> str:
        value = node.host.environ.get(name)
        return f"{name} unset" if value is None else f"{name}={value}"

    return Fact(read, "have")


def _severity(name: str, nodes: Sequence[Node]) -> Severity:
    if name in _AGREED:
        return Severity.FAIL
    everywhere = all(name in node.host.environ for node in nodes)
    return Severity.INFO if name in _OF_THE_NODE and everywhere else Severity.WARN


RULE = Rule(
    id="nodes.environ",
    title="NCCL_* and GLOO_* settings, over nodes",
    why="Ranks choose algorithm and transport by them: ranks with different choices wait for"
    " one another in the first collective.",
    fix="Set them in one place: `distrun launch --env NAME=VALUE` sets them on every node;"
    " remove them from the profile of the node that differs.",
    source="stas00/ml-engineering, network",
    judge=_judge,
)
