"""Refuses impossible numbers in a recorded snapshot: the file was edited or damaged."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

from distrun.errors import UsageError

_RANGES = {
    "_percent": (0, 100),
    "_c": (-273, 1000),
    "offset_s": (-math.inf, math.inf),
    "port": (0, 65535),
}
"""Suffix of a field's name -> its minimum and maximum. Other numbers start at 0."""
_UNLIMITED = ("memlock_nbytes", "nofile", "nproc")
"""Limits that may be -1."""
_AT_MOST = {
    "memory_used_nbytes": "memory_total_nbytes",
    "memory_available_nbytes": "memory_total_nbytes",
    "bar1_used_nbytes": "bar1_total_nbytes",
    "shm_free_nbytes": "shm_total_nbytes",
    "runs_dir_free_nbytes": "runs_dir_total_nbytes",
}
"""Field -> the field of the same object that is an upper bound for it."""


def require_possible(data: Any, source: str) -> None:
    """Refuse a node's JSON with an impossible number.

    Args:
        data: The JSON, parsed.
        source: The file or node that it came from, for the message.

    Raises:
        UsageError: It names the key, the value and the limit.
    """
    if problem := _impossible(data):
        raise UsageError(f"{source}: {problem}", "it was edited or damaged: save it again")


def _impossible(value: Any, name: str = "") -> str:
    """Return the path of the first impossible number and its problem, or ""."""
    items: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        items, problem = value.items(), _too_much(value)
    elif isinstance(value, list):
        items, problem = enumerate(value), _twice(value) if name == "gpus" else ""
    else:
        return ""
    if problem:
        return problem
    for key, each in items:  # a cluster has millions of numbers
        kind = type(each)
        if kind is int or kind is float:
            least, most = _range(key if isinstance(key, str) else name)
            if not least <= each <= most or abs(each) == math.inf:
                return f"{key} is {each}, {_what(each, least, most)}"
        elif (kind is dict or kind is list) and (problem := _impossible(each, str(key))):
            return f"{key}{problem if problem.startswith(' ') else '.' + problem}"
    return ""


@functools.cache
def _range(name: str) -> tuple[float, float]:
    least, most = next((r for end, r in _RANGES.items() if name.endswith(end)), (0, math.inf))
    return (-1 if name in _UNLIMITED else least), most


def _what(value: float, least: float, most: float) -> str:
    if not math.isfinite(value):
        return "which is not a number"
    return f"below {least}" if value < least else f"above {most}"


def _too_much(fields: dict[str, Any]) -> str:
    for name in _AT_MOST.keys() & fields.keys():
        value, most = fields[name], fields.get(_AT_MOST[name])
        if isinstance(value, int) and isinstance(most, int) and value > most >= 0 <= value:
            return f"{name} is {value}, above {_AT_MOST[name]}, which is {most}"
    return ""


def _twice(values: list[Any]) -> str:
    indexes = [each.get("index") for each in values if isinstance(each, dict)]
    twice = next((index for index in indexes if indexes.count(index) > 1), None)
    return "" if twice is None else f" has two GPUs with index {twice}"
