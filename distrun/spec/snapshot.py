"""Reads snapshots of nodes: from files of `distrun check --save`, and from probes."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from distrun.errors import UsageError
from distrun.spec.possible import require_possible

_MAX_NBYTES = 64 << 20
_HINT = "`distrun check --save FILE` writes such files"
_Node = TypeVar("_Node")


def read_snapshots(path: Path, node_type: type[_Node]) -> list[_Node]:
    """Return the nodes of a file, which holds one node or a list.

    Args:
        path: The file, or a pipe.
        node_type: The dataclass of a node; the default of its field `schema` is the version.

    Raises:
        UsageError: It cannot be read, or a key or a value is wrong.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_NBYTES + 1)
    except OSError as error:
        raise UsageError(f"snapshot {str(path)!r}: {error.strerror}", _HINT) from None
    if len(text) > _MAX_NBYTES:
        raise UsageError(f"snapshot {str(path)!r} is longer than 64 MiB", _HINT)
    if not text.strip():
        raise UsageError(f"snapshot {str(path)!r} is empty", _HINT)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"snapshot {str(path)!r} is not JSON: {error}", _HINT) from None
    nodes = data if isinstance(data, list) else [data]
    if not nodes:
        raise UsageError(f"snapshot {str(path)!r} contains no node", _HINT)
    source = f"snapshot {str(path)!r}"
    for node in nodes:
        require_possible(node, source)
    return [node_of(node, node_type, source) for node in nodes]


def node_of(data: Any, node_type: type[_Node], source: str) -> _Node:
    """Return a node from its JSON.

    Args:
        data: The JSON, parsed.
        node_type: The dataclass of a node.
        source: The file or node that it came from, for the message.

    Raises:
        UsageError: It has another schema, or a key or a value is wrong.
    """
    if not isinstance(data, dict):
        raise UsageError(f"{source} contains {type(data).__name__}, not a node", _HINT)
    own = next(f.default for f in dataclasses.fields(node_type) if f.name == "schema")  # type: ignore[arg-type]
    if data.get("schema") != own or isinstance(data["schema"], bool):
        raise UsageError(
            f"{source} has schema {data.get('schema')!r}, not {own}",
            "it was written by another version of distrun, or is not a snapshot; " + _HINT,
        )
    try:
        # Names with bytes that are not text must not make the node unreadable.
        text = json.dumps(data, ensure_ascii=False).encode(errors="replace")
        node: _Node = _adapter(node_type).validate_json(text, strict=True)  # type: ignore[arg-type] # a class is hashable
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UsageError(f"{source}: {key}: {first['msg']}", _HINT) from None
    if unknown := _unknown_key(data, node):
        raise UsageError(
            f"{source}: unknown key {unknown!r}", "it was written by a newer distrun, or edited"
        )
    return node


@functools.cache
def _adapter(node_type: type[Any]) -> TypeAdapter[Any]:
    """Return the validator of a dataclass; building it takes 0.1 s."""
    return TypeAdapter(node_type)


def _unknown_key(given: Any, known: Any) -> str:
    """Return the path of the first key that the dataclass does not have."""
    if isinstance(given, dict):
        fields = known if isinstance(known, dict) else vars(known)
        for key, value in given.items():
            if key not in fields:
                return str(key)
            if isinstance(value, dict | list) and (inner := _unknown_key(value, fields[key])):
                return f"{key}.{inner}"
    elif isinstance(given, list):
        for index, (value, own) in enumerate(zip(given, known, strict=True)):
            if inner := _unknown_key(value, own):
                return f"{index}.{inner}"
    return ""
