"""A time service should synchronise the clock."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    if host.clock_synchronized is None:
        yield from unread(host, "clock_synchronized")
    elif not host.clock_synchronized:
        # One node has one clock.
        severity = Severity.WARN if job.nnodes > 1 else Severity.INFO
        yield Observation(severity, "not synchronised", "synchronised by NTP or PTP")


RULE = Rule(
    id="host.clock",
    title="Clock synchronisation",
    why="Logs of several nodes cannot be put in order, certificates and tokens may be refused,"
    " and the offset grows every day.",
    fix="`systemctl enable --now chronyd` (or systemd-timesyncd); `timedatectl` shows the state.",
    source="adjtimex(2): STA_UNSYNC; distrun's own rule",
    judge=each_host(_check),
)
