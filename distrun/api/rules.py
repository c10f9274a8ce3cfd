"""Resolves names of rules in `--ignore`, `--explain` and the config's `ignore`."""

from __future__ import annotations

from collections.abc import Sequence

from distrun.errors import UsageError, did_you_mean
from distrun.spec.job import Settings


def ignored(settings: Settings, flags: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the ids of rules, or prefixes such as `gpu.*`, to ignore.

    Raises:
        UsageError: There is no such rule.
    """
    flags = [name.strip() for words in flags for name in words.split(",") if name.strip()]
    table = () if isinstance(settings.check, bool) else settings.check.ignore
    for source, ids in (("--ignore", flags), ("ignore in [tool.distrun.check]:", table)):
        for name in ids:
            require_rule(name, source)
    return (*flags, *table)


def require_rule(name: str, source: str) -> None:
    """Refuse a name that matches no rule.

    Raises:
        UsageError: It matches no rule.
    """
    from distrun.checks.registry import RULES_BY_ID, known  # a launch rarely names rules

    if not known(name):
        hint = did_you_mean(name, RULES_BY_ID)
        if not hint.startswith("did"):
            hint = "`distrun check --explain list` lists all rules"
        raise UsageError(f"{source} {name!r} is not a rule", hint)
