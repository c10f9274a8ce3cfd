"""The exceptions of distrun, and the exit codes of `distrun launch`.

    DistrunError            message + hint; code 70, an internal error of distrun
    ├── UsageError          wrong input of the user (2)
    └── MachineError        something that a machine lacks (3)
        └── NodesMissing    nodes that cannot be reached, or cannot reach one another (4)

A message names the thing, its value and the limit; the hint is the command or
the setting that fixes it. Only `cli` turns an error into an exit code.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable


class ExitCode(enum.IntEnum):
    """Exit codes of `distrun launch`; any other is the first failing rank's own."""

    OK = 0
    USAGE = 2
    MACHINE = 3
    JOIN_TIMEOUT = 4
    NODE_LOST = 5
    INTERNAL = 70
    TIME_LIMIT = 124
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class DistrunError(Exception):
    """An error that distrun can explain.

    Args:
        message: One sentence: the thing, its value, the limit.
        hint: The command or the setting that fixes it, or "".
    """

    exit_code = ExitCode.INTERNAL

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ShowsItsHint:
    """Mixin for a DistrunError raised in users' programs: its traceback shows the hint."""

    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class UsageError(DistrunError):
    """The user's command line, file or call is wrong."""

    exit_code = ExitCode.USAGE


class MachineError(DistrunError):
    """A machine lacks what the job asks for."""

    exit_code = ExitCode.MACHINE


class NodesMissing(MachineError):
    """Nodes of the job cannot be reached, or cannot reach one another."""

    exit_code = ExitCode.JOIN_TIMEOUT


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint with the known name nearest to `word`, or with all names."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else "one of: " + ", ".join(names)


def require_supported_system(name: str) -> None:
    """Refuse systems other than Linux and macOS: fork, signals and process groups are needed.

    Args:
        name: `sys.platform`.

    Raises:
        MachineError: It is neither Linux nor macOS.
    """
    if not name.startswith(("linux", "darwin")):
        raise MachineError(
            f"distrun does not run on {name}; it runs on Linux and macOS",
            "on Windows, use WSL 2",
        )
