"""InfiniBand links that go down and up again."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host
from distrun.checks.limits import Limits
from distrun.checks.nics import is_active
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    most = limits.link_downed_warn
    for port in host.infiniband:
        name = f"{port.device}:{port.port}"
        if not is_active(port.state):
            continue  # reported by host.infiniband
        if port.link_downed is None:
            yield Observation(
                Severity.SKIP, "the counter link_downed was not read", "", device=name
            )
        elif port.link_downed > most:
            yield Observation(
                Severity.WARN, f"went down {port.link_downed} times", f"at most {most}", device=name
            )


RULE = Rule(
    id="host.infiniband.flaps",
    title="InfiniBand links that flap",
    why="Each time the link goes down NCCL retries, and fails when its retries are used up"
    " (IBV_WC_RETRY_EXC_ERR). The counter starts at boot: check whether it still grows.",
    fix="Reseat or change the cable or the transceiver; `mlxlink -d DEVICE -m` shows its state.",
    source="leptonai/gpud, NVIDIA/nvidia-resiliency-ext (link_downed)",
    judge=each_host(_check),
)
