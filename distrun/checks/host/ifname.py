"""An interface that NCCL or gloo is told to use must be there."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.nics import IFNAMES, LOOPBACKS, chosen_names
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Host


def _look(host: Host, job: Job, limits: Limits) -> Iterator[Observation]:
    for variable in IFNAMES:
        value = host.environ.get(variable)
        if not value or (variable.startswith("NCCL_") and not job.uses_gpus):
            continue
        if "nics" in host.missing:
            yield from unread(host, "nics")
        elif problem := _problem(variable, value, host, job):
            up = [nic.name for nic in host.nics if nic.up]
            expected = f"one of {', '.join(up)}" if up else "unset: no interface is up"
            yield Observation(Severity.FAIL, f"{variable}={value}: {problem}", expected)


def _problem(variable: str, value: str, host: Host, job: Job) -> str:
    up = {nic.name for nic in host.nics if nic.up}
    chosen = set(chosen_names(variable, value, [*(nic.name for nic in host.nics), *LOOPBACKS]))
    wanted = {name.strip() for name in value.split(",")}
    if not chosen or (variable.startswith("GLOO_") and not wanted <= chosen):
        return "there is no such interface"
    if chosen <= set(LOOPBACKS):
        return "the loopback, which no other node reaches" if job.nnodes > 1 else ""
    return "" if chosen & up else "the interface is down"


RULE = Rule(
    id="host.ifname",
    title="Interface named by *_SOCKET_IFNAME",
    why="gloo and NCCL give up when the interface that they are told to use is not there; names"
    " often differ between nodes of one cluster.",
    fix="`ip -br addr` shows the names; set the variable on each node to its own, or unset it.",
    source="NVIDIA/nccl-tests#9; NCCL takes prefixes and ^exclusions, gloo whole names",
    judge=each_host(_look),
    quick=True,
)
