"""Collects facts that are read separately: a failure does not affect the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from distrun.probe.snapshot import NO_ANSWER

T = TypeVar("T")
LEFT_OUT = "left out of a quick probe"
"""The reason of a fact that was not requested."""


class Unread(Exception):
    """A fact cannot be read; the text is the reason for `missing` of the snapshot."""


class Reading:
    """Field values of one object of the snapshot, and the reasons of missing ones."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.missing: dict[str, str] = {}

    def take(self, fields: str | tuple[str, ...], function: Callable[..., Any], *args: Any) -> None:
        """Read one field, or several fields that one call returns in order."""
        names = (fields,) if isinstance(fields, str) else fields
        try:
            found = function(*args)
        except (Unread, OSError, ValueError) as error:
            self.missing.update(dict.fromkeys(names, reason(error)))
        else:
            values = (found,) if isinstance(fields, str) else found
            self.values.update(zip(names, values, strict=True))

    def fields(self) -> dict[str, Any]:
        """Return the arguments for the snapshot's dataclass."""
        return {**self.values, "missing": self.missing}


def reason(error: Exception) -> str:
    """Return the reason why a fact is missing."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def within(limit_s: float, what: str, function: Callable[[], T]) -> T:
    """Call a function that may hang in the kernel or a resolver, with a time limit.

    Raises:
        Unread: It has not answered in time, and its thread is left to itself; or none can be
            started.
        Exception: The exception of the function.
    """
    return begun(limit_s, what, function)()


def begun(limit_s: float, what: str, function: Callable[[], T]) -> Callable[[], T]:
    """Start such a call; the returned function waits for it and raises as `within`."""
    call = _Call(function)
    thread = threading.Thread(target=call.run, daemon=True)
    deadline = time.monotonic() + limit_s
    try:
        thread.start()
    except RuntimeError as error:  # this user may have no more threads
        raise Unread(f"{what} cannot be asked: {error}") from None

    def result() -> T:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            raise Unread(f"{what} {NO_ANSWER} {limit_s:g} s")
        if call.error is not None:
            raise call.error
        return call.results[0]

    return result


class _Call(Generic[T]):
    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self.results: list[T] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.results.append(self._function())
        except Exception as error:  # the caller must see any exception
            self.error = error
