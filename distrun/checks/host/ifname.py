"""An interface named by *_SOCKET_IFNAME must exist and be up."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.nics import IFNAMES, LOOPBACKS, chosen_names
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
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


def _problem(variable: str, value: str, host: Host, job: Workload) -> str:
    up = {nic.name for nic in host.nics if nic.up}
    chosen = set(chosen_names(variable, value, [*(nic.name for nic in host.nics), *LOOPBACKS]))
    wanted = {name.strip() for name in value.split(",")}
    if not chosen or (variable.startswith("GLOO_") and not wanted <= chosen):
        return "there is no such interface"
    if chosen <= set(LOOPBACKS):
        return "the loopback, which other nodes cannot reach" if job.nnodes > 1 else ""
    return "" if chosen & up else "the interface is down"


RULE = Rule(
    id="host.ifname",
    title="Interface named by *_SOCKET_IFNAME",
    why="gloo and NCCL fail if the interface does not exist; names often differ between the"
    " nodes of a cluster.",
    fix="`ip -br addr` shows the names; set the variable on each node to that node's name, or"
    " unset it.",
    source="NVIDIA/nccl-tests#9; NCCL takes prefixes and ^exclusions, gloo whole names",
    judge=each_host(_check),
    quick=True,
)
