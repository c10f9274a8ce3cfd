"""The rules that compare nodes; `distrun launch` runs all of them on a job of several machines."""

from __future__ import annotations

from distrun.checks.nodes import (
    clique,
    clock_offset,
    environ,
    reach,
    same_gpus,
    same_hosts,
    same_software,
    topology,
    unreachable,
)
from distrun.checks.rule import Rule

ACROSS: tuple[Rule, ...] = (
    unreachable.RULE,
    reach.RULE,
    *same_software.RULES,
    *same_gpus.RULES,
    topology.RULE,
    clique.RULE,
    *same_hosts.RULES,
    environ.RULE,
    clock_offset.RULE,
)
