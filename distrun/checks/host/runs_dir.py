"""The run directory must be writable and have free space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import gib
from distrun.probe.snapshot import NO_ANSWER, Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    for seen in _in_it(host, limits):
        yield replace(seen, device=host.runs_dir)


def _in_it(host: Host, limits: Limits) -> Iterator[Observation]:
    free, total = host.runs_dir_free_nbytes, host.runs_dir_total_nbytes
    if host.runs_dir_writable is False:
        yield Observation(Severity.FAIL, "not writable", "writable")
    elif NO_ANSWER in (reason := host.missing.get("runs_dir_writable", "")):
        yield Observation(Severity.FAIL, reason, "a disk that answers")
    elif host.runs_dir_writable is None or free is None or not total:
        fields = ("runs_dir_writable", "runs_dir_free_nbytes", "runs_dir_total_nbytes")
        yield from unread(host, *fields)
    elif 100 * free < limits.runs_dir_free_percent * total:
        share = f"{100 * free / total:.1f} % ({gib(free)}) free"
        yield Observation(Severity.WARN, share, f"{limits.runs_dir_free_percent:g} % or more")


RULE = Rule(
    id="host.runs_dir",
    title="Run directory",
    why="Logs, the record of the run and the data for verdicts are written there. When the"
    " disk is full they are lost, and checkpoints on it fail half-written.",
    fix="`distrun ps --prune` removes old runs; --runs-dir names another place. No answer:"
    " `mount` shows the disk's server, and `dmesg` its errors.",
    source="distrun's own rule",
    judge=each_host(_check),
    quick=True,
)
