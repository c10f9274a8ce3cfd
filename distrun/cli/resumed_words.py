"""`distrun launch --resume RUN`: the command line of that run, with the options of this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from distrun.cli.torchrun_options import Given, split
from distrun.errors import UsageError


def with_recorded(words: Sequence[str], own: Mapping[str, bool]) -> list[str]:
    """Return the words after `launch`; if they have --resume, with those of the run before them.

    Args:
        words: As typed.
        own: Launch's own options; True for one that takes a value.

    Raises:
        UsageError: A script is given too, or a secret of the run is missing.
    """
    given, rest = split(list(words), own)
    name = next((option.value for option in reversed(given) if option.name == "--resume"), None)
    if name is None:
        return [*words]
    unknown = [option.name for option in given if option.name not in own]
    if unknown:
        raise UsageError(
            f"launch has no option {unknown[0]}",
            "--resume takes the script's arguments from that run",
        )
    if rest:
        raise UsageError(
            f"--resume {name} runs the script of that run, and {rest[0]!r} is one too",
            f"leave it out; or for the script's own --resume: {rest[0]} --resume {name}",
        )
    from distrun.api.resume import recorded_words

    places = [option.value for option in given if option.name == "--runs-dir" and option.value]
    before, script = split(recorded_words(Path(places[-1] if places else "runs"), name), own)
    kept = [option for option in before if not _is_replaced(option, given)]
    _require_values(kept)
    return [*_words(kept), *_words(given), *script]


def _words(options: Sequence[Given]) -> list[str]:
    return [word for option in options for word in option.words]


def _is_replaced(option: Given, given: Sequence[Given]) -> bool:
    """Return whether an option is given anew; of variables, the same one."""
    if option.name == "--env":
        names = {(new.value or "").partition("=")[0] for new in given if new.name == "--env"}
        return (option.value or "").partition("=")[0] in names
    return option.name == "--resume" or any(new.name == option.name for new in given)


def _require_values(options: Sequence[Given]) -> None:
    from distrun.api.resume import is_masked

    for option in options:
        if is_masked(option.words[-1]):
            name = (option.value or "").partition("=")[0]
            raise UsageError(
                f"the value of {name} is a secret, and was not recorded",
                f"give it again: --env {name}=…",
            )
