"""Every rule of the project, in the order in which findings of equal severity are told."""

from __future__ import annotations

from distrun.checks.host import shm
from distrun.checks.nodes import unreachable
from distrun.checks.rule import Rule

RULES: tuple[Rule, ...] = (
    unreachable.RULE,
    shm.RULE,
)
RULES_BY_ID = {rule.id: rule for rule in RULES}


def matches(pattern: str, rule_id: str) -> bool:
    """Return whether `gpu.ecc.mode`, or `gpu.*`, names a rule."""
    if pattern.endswith(".*"):
        return rule_id.startswith(pattern[:-1])
    return rule_id == pattern


def known(pattern: str) -> bool:
    """Return whether an id, or a prefix that ends in `.*`, names any rule at all."""
    return any(matches(pattern, rule_id) for rule_id in RULES_BY_ID)
