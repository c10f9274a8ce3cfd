"""Finds the original error behind one from another process, a group, or a `raise … from`.

The error that carries it is raised elsewhere. Often it has the original only as text: the
traceback that another process sent.
"""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

from distrun.agent.told_traceback import Told, told_in
from distrun.frames import is_library, shortened

_DEPTH = 100
_CARRIER_CHARS = 240
_POOLS = {
    "concurrent.futures.process": "ProcessPoolExecutor",
    "multiprocessing.pool": "multiprocessing.Pool",
    "multiprocess.pool": "multiprocess.Pool",
}


class Place(NamedTuple):
    """Where an exception was raised; `own` if that is the user's code."""

    file: str = ""
    line: int = 0
    function: str = ""
    source: str = ""
    own: bool = False


class Original(NamedTuple):
    """The error to report, innermost last, and what has carried it, outermost first."""

    errors: list[BaseException]
    carriers: list[str]
    told: Told | None = None
    """What a text from another process says about it."""


def original(error: BaseException) -> Original:
    """Return the original of an exception, which is often the exception itself.

    A cause counts if the user's code is in its traceback. Other causes are internal to a
    library (`queue.Empty` behind "DataLoader worker exited unexpectedly").
    """
    found = Original([error], [])
    for _ in range(_DEPTH):
        error = found.errors[-1]
        if told := _told(error):
            return found._replace(carriers=[*found.carriers, told.carrier], told=told)
        inner = _first_of_group(error) or _cause(error)
        if inner is None or any(inner is known for known in found.errors):
            break
        carrier = _carrier(error)
        found = Original([*found.errors, inner], [*found.carriers, carrier])
    return found


def place_of(error: BaseException) -> Place:
    """Return the last place in the user's own code, or the last of all."""
    if isinstance(error, SyntaxError) and isinstance(error.filename, str):
        line = int(error.lineno or 0)
        return Place(error.filename, line, "<module>", _source(error.filename, line, {}), own=True)
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [each for each in frames if not is_library(each[0].f_code.co_filename)]
    if not frames:
        return Place()
    frame, number = (own or frames)[-1]
    file, line = frame.f_code.co_filename, number or 0
    source = _source(file, line, frame.f_globals)
    return Place(file, line, frame.f_code.co_name, source, bool(own))


def _source(file: str, line: int, module: dict[str, Any]) -> str:
    try:
        return linecache.getline(file, line, module).strip()
    except Exception:  # the user's loader may raise anything
        return ""


def best_place(found: Original) -> Place:
    """Return the innermost place in the user's own code, or the last of all."""
    places = list(_places(found))
    return next((place for place in places if place.own), places[0])


def _places(found: Original) -> Iterator[Place]:
    if found.told:
        yield Place(*found.told.frame, own=found.told.own)
    for error in reversed(found.errors):
        yield place_of(error)


def _told(error: BaseException) -> Told | None:
    """Return what the text of another process says about the original."""
    cause = error.__cause__
    if cause is not None and type(cause).__name__ in ("RemoteTraceback", "_RemoteTraceback"):
        module = type(cause).__module__
        told = told_in(_words(cause))
        pool = _POOLS.get(module, module.partition(".")[0])
        return told and told._replace(carrier=f"in a worker of {pool}")
    told = told_in(_words(error))
    return told and told._replace(carrier=told.carrier or _carrier(error))


def _first_of_group(error: BaseException) -> BaseException | None:
    """Return the first exception of an ExceptionGroup (of the backport for Python 3.10, too)."""
    if any(kind.__name__ == "BaseExceptionGroup" for kind in type(error).__mro__):
        first = getattr(error, "exceptions", (None,))[0]
        return first if isinstance(first, BaseException) else None
    return None


def _cause(error: BaseException) -> BaseException | None:
    """Return the cause, or its cause, that was raised in the user's code."""
    cause = error.__cause__
    for _ in range(_DEPTH):
        if not isinstance(cause, Exception):
            return None
        if _told(cause) or _first_of_group(cause) or place_of(cause).own:
            return cause
        cause = cause.__cause__
    return None


def _carrier(error: BaseException) -> str:
    message = _words(error).strip().partition("\n")[0]
    name = type(error).__name__
    return shortened(f"carried by {name}: {message}" if message else name, _CARRIER_CHARS)


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # the user's __str__ may raise anything, SystemExit too
        return ""
