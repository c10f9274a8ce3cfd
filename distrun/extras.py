"""Packages that distrun can do without: is one there, and what installs it."""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path


def missing(package: str, extra: str) -> str:
    """Return the command that installs a package; "" if it is there.

    Args:
        package: As it is imported.
        extra: The extra of distrun that brings it.
    """
    return "" if find_spec(package) else install_command(extra, Path(__file__).parent.parent)


def install_command(extra: str, root: Path) -> str:
    """Return a line for a shell that installs an extra for this Python.

    Args:
        extra: Its name in pyproject.toml.
        root: The directory that holds the package distrun: a checkout, or site-packages.
    """
    pip = [sys.executable, "-m", "pip", "install"]
    if not (root / "pyproject.toml").is_file():
        return shlex.join([*pip, f"distrun[{extra}]"])
    place = "." if root == Path.cwd() else str(root)
    return shlex.join([*pip, "-e", f"{place}[{extra}]"])
