"""Explains rules of the check: what they check, why, their limits, and the fix."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass, fields
from typing import Any

from distrun.api.rules import require_rule
from distrun.checks.limits import Limits
from distrun.checks.registry import RULES
from distrun.checks.rule import Rule, matches
from distrun.spec.check import limits_of
from distrun.spec.job import Settings
from distrun.spec.schema import field_docstrings


@dataclass(frozen=True)
class Limit:
    """One threshold that a rule reads."""

    name: str
    value: Any
    default: Any
    doc: str


@dataclass(frozen=True)
class Explanation:
    """A rule, and its thresholds from the settings."""

    rule: Rule
    limits: tuple[Limit, ...]


def explain(pattern: str, settings: Settings | None = None) -> list[Explanation]:
    """Explain a rule, all that a prefix such as `gpu.*` names, or `all`.

    Args:
        pattern: Its id, a prefix, or all.
        settings: The settings, which may override limits.

    Raises:
        UsageError: There is no such rule.
    """
    if pattern != "all":
        require_rule(pattern, "--explain")
    limits = limits_of((settings or Settings()).check, Limits)
    docs = field_docstrings(Limits)
    return [
        Explanation(
            rule,
            tuple(
                Limit(name, getattr(limits, name), getattr(Limits, name), docs.get(name, ""))
                for name in _limits_read_by(rule)
            ),
        )
        for rule in RULES
        if pattern == "all" or matches(pattern, rule.id)
    ]


def _limits_read_by(rule: Rule) -> list[str]:
    """Return the limits that the source file of a rule reads."""
    in_rooms = re.compile(r"distrun\.checks\.\w+\.\w+")
    modules = [module for name, module in sys.modules.items() if in_rooms.fullmatch(name)]
    (module,) = (
        module
        for module in modules
        if getattr(module, "RULE", None) is rule or rule in getattr(module, "RULES", ())
    )
    source = inspect.getsource(module)
    named = re.findall(r"\blimits\.(\w+)", source)
    families = tuple(re.findall(r'getattr\(limits, f"(\w+)', source))  # driver_for_cuda_{…}
    names = [field.name for field in fields(Limits)]
    return [name for name in names if name in named or (families and name.startswith(families))]


__all__ = ["Explanation", "Limit", "explain"]
