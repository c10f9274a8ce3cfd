"""Reads the files of `--patch`: partial objects of Kubernetes, in JSON or YAML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distrun.errors import UsageError
from distrun.extras import missing

_LIMIT_NBYTES = 1 << 20
_MAX_VALUES = 100_000
"""YAML's aliases make much of little."""
_MAX_DEPTH = 40


def read_patches(path: Path) -> list[Mapping[str, Any]]:
    """Return the mappings of a file: one of JSON, or those of each YAML document.

    Raises:
        UsageError: It cannot be read, or holds something else; or it is YAML and PyYAML is not
            installed.
    """
    text = _text(path)
    found = []
    for document in _documents(path, text):
        if not isinstance(document, Mapping) or not document:
            raise _refused(path, f"it holds {_short(document)} instead of a mapping")
        found.append(_plain(path, document, [_MAX_VALUES], _MAX_DEPTH))
    if not found:
        raise _refused(path, "it is empty")
    return found


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(
        f"--patch {str(path)!r}: {why}",
        "a part of an object in YAML or JSON, such as"
        ' {"spec": {"template": {"spec": {"priorityClassName": "high"}}}}',
    )


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT_NBYTES + 1)
    except OSError as error:
        raise _refused(path, str(error.strerror)) from None
    if len(data) > _LIMIT_NBYTES:
        raise _refused(path, f"it is larger than the limit of {_LIMIT_NBYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _refused(path, "it is not UTF-8") from None


def _documents(path: Path, text: str) -> list[Any]:
    if text.lstrip().startswith("{"):
        try:
            return [json.loads(text)]
        except (ValueError, RecursionError):
            pass  # YAML has such mappings too
    if install := missing("yaml", "kubernetes"):
        raise UsageError(f"--patch {str(path)!r} is no JSON, and YAML needs PyYAML", install)
    import yaml

    try:
        return [each for each in yaml.safe_load_all(text) if each is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2026-99-99
        where = getattr(error, "problem_mark", None)
        at = f" in line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise _refused(path, f"it is not YAML{at}: {problem}") from None


def _plain(path: Path, value: Any, left: list[int], depth: int) -> Any:
    """Return a value if it is JSON.

    Raises:
        UsageError: It holds something that JSON has not, or too much.
    """
    left[0] -= 1
    if left[0] < 0:
        raise _refused(path, f"it holds more than {_MAX_VALUES} values")
    if not depth:
        raise _refused(path, f"it is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise _refused(path, f"the key {key!r} is not text: put quotes around it")
        return {key: _plain(path, each, left, depth - 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(path, each, left, depth - 1) for each in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise _refused(path, f"{_short(value)} is not text: put quotes around it")


def _short(value: Any) -> str:
    shown = str(value) if not isinstance(value, (str, list)) else repr(value)
    return shown if len(shown) <= 40 else f"{shown[:40]}…"
