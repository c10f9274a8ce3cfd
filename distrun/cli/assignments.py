"""`--env NAME=VALUE` and its like, which several commands take."""

from __future__ import annotations

from distrun.errors import UsageError


def assignments(pairs: list[str], option: str = "--env") -> dict[str, str]:
    """Return NAME=VALUE arguments as a dict.

    Args:
        pairs: The arguments.
        option: What they were given to, for messages.

    Raises:
        UsageError: An argument is not NAME=VALUE.
    """
    environ = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(
                f"{option} {name!r} is not NAME=VALUE", f"{option} {name or 'NAME'}=VALUE"
            )
        environ[name] = value
    return environ
