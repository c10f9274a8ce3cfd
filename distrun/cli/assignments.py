"""`--env NAME=VALUE`, which several commands take."""

from __future__ import annotations

from distrun.errors import UsageError


def assignments(pairs: list[str]) -> dict[str, str]:
    """Return NAME=VALUE arguments as a dict.

    Raises:
        UsageError: An argument is not NAME=VALUE.
    """
    environ = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--env {name!r} is not NAME=VALUE", f"--env {name or 'NAME'}=VALUE")
        environ[name] = value
    return environ
