"""Ports of RDMA adapters should be active."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host
from distrun.checks.limits import Limits
from distrun.checks.nics import is_active
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Host, InfinibandPort


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    any_active = any(is_active(port.state) for port in host.infiniband)
    for port in host.infiniband:
        name = f"{port.device}:{port.port}"
        if not port.state:
            yield Observation(Severity.SKIP, "the state was not read", "", device=name)
        elif not is_active(port.state):
            yield Observation(
                _severity(port, host, any_active=any_active),
                f"{_word(port.state)}, link {_word(port.physical_state)}",
                "ACTIVE, link LinkUp",
                device=name,
            )


def _severity(port: InfinibandPort, host: Host, *, any_active: bool) -> Severity:
    if _is_asked_for(port, host.environ.get("NCCL_IB_HCA", "")):
        return Severity.FAIL
    linked = port.physical_state.startswith("5")  # link up but not active: no subnet manager
    # A second port without a cable is common.
    alone = _is_polling(port) and _siblings_are_up(port, host)
    return Severity.WARN if linked or alone or not any_active else Severity.INFO


def _is_polling(port: InfinibandPort) -> bool:
    """Return whether it is enabled and looks for a link."""
    return port.physical_state.startswith("2")


def _siblings_are_up(port: InfinibandPort, host: Host) -> bool:
    """Return whether most ports of the same adapter model are up, all at one rate."""
    alike = [p for p in host.infiniband if port.board and p.board == port.board]
    up = [p for p in alike if is_active(p.state)]
    return 2 * len(up) > len(alike) and len({(p.rate, p.link_layer) for p in up}) == 1


def _is_asked_for(port: InfinibandPort, asked: str) -> bool:
    """Return whether NCCL_IB_HCA names it: `mlx5_0`, `mlx5_0:1`, `=mlx5_0`, or a prefix."""
    if asked.startswith("^"):
        return False
    exact = asked.startswith("=")
    for part in filter(None, asked.lstrip("=").split(",")):
        name, _, number = part.strip().partition(":")
        fits = port.device == name if exact else port.device.startswith(name)
        if fits and number in ("", str(port.port)):
            return True
    return False


def _word(text: str) -> str:
    return text.partition(":")[2].strip() or text


RULE = Rule(
    id="host.infiniband",
    title="InfiniBand ports",
    why="NCCL does not use an inactive port; without any active port it falls back to sockets,"
    " which are ten times slower. A port that NCCL_IB_HCA names must exist.",
    fix="`ibstat` shows the ports; INIT means that no subnet manager (opensm) answers; DOWN"
    " with Polling means a fault of the cable or the switch port.",
    source="NVIDIA/nvidia-resiliency-ext, Azure/azurehpc-health-checks",
    judge=each_host(_check),
)
