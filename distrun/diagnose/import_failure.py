"""Tells whether a rank failed in an import, where the order of imports may matter."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from typing import Any

from distrun.frames import is_library

_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)
_MODULE_LEVEL = re.compile(r'^  File "([^<"][^"]*)", line \d+, in <module>$', re.MULTILINE)
_IMPORT_ERROR = re.compile(r"^(\w+\.)*ImportError\b", re.MULTILINE)
_MISSING = re.compile(r"No module named '\w+'$")
"""A package is not installed: another import order does not help."""
_CLASH = re.compile(
    r"compiled (against|using)|binary incompatib|partially initialized module|undefined symbol"
    r"|version `\w+' not found|cannot open shared object|static TLS|_ARRAY_API not found"
    r"|import(ed|ing)?\b.{0,60}\b(before|after)\b.{0,60}\btorch\b|torch\b.{0,60}\bimported\b",
    re.IGNORECASE,
)
"""Text of a version conflict, or of a library that must be imported before torch."""


def fell_in_import(exit_code: int, report: Mapping[str, Any] | None, stacks: str) -> bool:
    """Return whether a rank failed in an import or by a version conflict.

    Args:
        exit_code: Its exit code, or -n for signal n.
        report: Its report of an uncaught exception.
        stacks: faulthandler's output of its crash.
    """
    if report is None:
        return -exit_code in _CRASHES and "<frozen importlib._bootstrap" in _current(stacks)
    message, traceback = str(report["message"]), str(report["traceback"])
    if report["type"] == "ModuleNotFoundError" and _MISSING.search(message):
        return False
    if report["type"] == "ImportError" and _is_misspelt(message):
        return False
    importing = _MODULE_LEVEL.findall(traceback)
    return bool(
        report["type"] in ("ImportError", "ModuleNotFoundError")
        or _IMPORT_ERROR.search(traceback)  # the error was raised from another one
        or _CLASH.search(message)
        or any(is_library(file) for file in importing)
    )


def _is_misspelt(message: str) -> bool:
    """Return whether a name is not where it is looked for, whatever was imported before.

    So it is in torch, which is imported first in either case, and in the user's own files.
    """
    if message.startswith("attempted relative import"):
        return True
    if "partially initialized module" in message:  # a circle of the user's own files
        found = re.search(r"\((/[^()]+)\)$", message)
        return bool(found and not is_library(found[1]))
    found = re.match(r"cannot import name '.*' from '([\w.]+)' \((.*)\)", message)
    return bool(found and (found[1].split(".")[0] == "torch" or not is_library(found[2])))


def _current(stacks: str) -> str:
    """Return the stack of the thread that crashed."""
    return stacks.partition("Current thread")[2].partition("\n\n")[0]
