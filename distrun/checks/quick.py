"""The rules that `distrun launch` runs, in their own file: importing all rules would be slower."""

from __future__ import annotations

from distrun.checks.gpu import (
    clocks_hardware,
    compute_mode,
    count,
    cuda_version,
    driver,
    lost,
    memory_used,
    processes,
    recovery_action,
    row_remap_failure,
)
from distrun.checks.host import (
    cpu,
    environ,
    hostname,
    ifname,
    loopback,
    memory,
    nofile,
    nproc,
    runs_dir,
    shm,
)
from distrun.checks.nodes import unreachable
from distrun.checks.rule import Rule

QUICK: tuple[Rule, ...] = (
    driver.RULE,
    count.RULE,
    lost.RULE,
    recovery_action.RULE,
    cuda_version.RULE,
    compute_mode.RULE,
    row_remap_failure.RULE,
    clocks_hardware.RULE,
    memory_used.RULE,
    processes.RULE,
    hostname.RULE,
    loopback.RULE,
    ifname.RULE,
    nofile.RULE,
    nproc.RULE,
    shm.RULE,
    cpu.RULE,
    memory.RULE,
    runs_dir.RULE,
    environ.RULE,
    unreachable.RULE,
)
"""The rules of the registry that are marked quick, in its order."""
