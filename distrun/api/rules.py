"""Rules as users name them: `--ignore`, `--explain`, and the config's `ignore`."""

from __future__ import annotations

from collections.abc import Sequence

from distrun.errors import UsageError, did_you_mean
from distrun.spec.job import Settings


def ignored(settings: Settings, flags: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the ids of rules, or prefixes such as `gpu.*`, that are left out.

    Raises:
        UsageError: There is no such rule.
    """
    table = () if isinstance(settings.check, bool) else settings.check.ignore
    for source, ids in (("--ignore", flags), ("ignore in [tool.distrun.check]:", table)):
        for name in ids:
            require_rule(name, source)
    return (*flags, *table)


def require_rule(name: str, source: str) -> None:
    """Refuse what names no rule.

    Raises:
        UsageError: It names none.
    """
    from distrun.checks.registry import RULES_BY_ID, known  # a launch rarely names one

    if not known(name):
        hint = did_you_mean(name, RULES_BY_ID)
        if not hint.startswith("did"):
            hint = "`distrun check --explain list` names them all"
        raise UsageError(f"{source} {name!r} is no rule", hint)
