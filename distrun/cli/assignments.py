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


def where_and_actions(values: list[str]) -> dict[str, str | dict[str, str]]:
    """Return the settings of `--on`: `on` is where a job runs, `on_failure` what is done then.

    Of several places the last one counts, as of every flag.
    """
    places = [value for value in values if "=" not in value]
    found: dict[str, str | dict[str, str]] = {}
    if places:
        found["on"] = places[-1]
    if actions := assignments([value for value in values if "=" in value], "--on"):
        found["on_failure"] = actions
    return found
