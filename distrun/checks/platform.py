"""distrun runs on Linux and macOS."""

from __future__ import annotations

from distrun.errors import MachineError


def check_platform(name: str) -> None:
    """Refuse other systems by name.

    Args:
        name: `sys.platform`.

    Raises:
        MachineError: The system has no fork, no signals and no process groups as we need them.
    """
    if not name.startswith(("linux", "darwin")):
        raise MachineError(
            f"distrun does not run on {name}; it runs on Linux and macOS",
            "on Windows, WSL 2 is a Linux",
        )
