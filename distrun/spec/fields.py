"""Field types that parse what people type: node ranges, durations, GPU choices."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from distrun.env import is_secret
from distrun.errors import UsageError, did_you_mean
from distrun.failures import KINDS
from distrun.spec.base import Refused
from distrun.spec.host_values import MAX_PORT, MAX_SLOTS
from distrun.spec.hosts import HostSpec, hosts_of

STRATEGIES = ("dp", "ddp", "fsdp", "hsdp", "tp", "pp", "ep", "cp")
Strategy = Literal["dp", "ddp", "fsdp", "hsdp", "tp", "pp", "ep", "cp"]

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_SECONDS = 86400.0 * 365
_MAX_GRACE_S = 86400.0 * 7  # poll(2) counts milliseconds in an int: 24 days


class NodeRange(NamedTuple):
    """How many nodes: exactly `max`, or as many as join from `min` to `max`."""

    min: int
    max: int

    def __str__(self) -> str:
        return str(self.max) if self.min == self.max else f"{self.min}:{self.max}"


def _nodes(value: Any) -> NodeRange:
    if isinstance(value, NodeRange):
        return value
    match = re.fullmatch(r"(\d+)(?::(\d+))?", str(value).strip())
    if not match or isinstance(value, bool):
        raise ValueError("is neither a number nor MIN:MAX")
    low, high = int(match[1]), int(match[2] or match[1])
    if low < 1:
        raise ValueError("is below 1")
    if low > high:
        raise ValueError(f"has its minimum {low} above its maximum {high}")
    return NodeRange(low, high)


def _nproc(value: Any) -> int | str:
    if isinstance(value, str) and value in ("auto", "gpu", "cpu"):
        return value
    try:
        number = int(str(value))
    except ValueError:
        raise ValueError("is neither auto, gpu, cpu nor a number") from None
    if number < 1 or isinstance(value, bool):
        raise ValueError("is below 1")
    return number


def _seconds(value: Any) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(value).strip())
    if not match or isinstance(value, bool):
        raise ValueError("is not a duration such as 90, 90s, 5m, 2h or 1d")
    if (seconds := float(match[1]) * _UNITS_S[match[2]]) > _MAX_SECONDS:
        raise ValueError("is longer than 365d")
    return seconds


def _positive_seconds(value: Any) -> float:
    if (seconds := _seconds(value)) <= 0:
        raise ValueError("is not above 0")
    return seconds


def _grace(value: Any) -> float:
    if (seconds := _seconds(value)) > _MAX_GRACE_S:
        raise ValueError("is longer than 7d")
    return seconds


def _gpus(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value).strip()
    if re.fullmatch(r"free:[1-9]\d*", text):
        return text
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ValueError("is neither a list of GPU numbers such as 0,2 nor free:COUNT")
    numbers = text.split(",")
    if len(set(numbers)) < len(numbers):
        raise ValueError("names a GPU twice")
    return text


def _actions(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("is not a table of FAILURE = ACTION")
    for name, action in value.items():
        if name not in KINDS:
            raise Refused(f"{name!r} is no kind of failure", did_you_mean(str(name), KINDS))
        if action not in KINDS[name].actions:
            fitting = ", ".join(KINDS[name].actions)
            hint = f"what can be done about {name}: {fitting}"
            raise Refused(f"{name}={action!s} is not possible", hint)
    return value


def _hosts(value: Any) -> tuple[HostSpec, ...]:
    try:
        return hosts_of(value)
    except UsageError as error:
        raise Refused(error.message, error.hint) from None


def is_variable(name: str) -> bool:
    """Return whether env(1) and shells accept `name` as the name of a variable."""
    return bool(re.fullmatch(r"[^\s=\0-][^\s=\0]*", name))


def without_secret(word: str) -> str:
    """Return the part of a wrong variable name that may be shown: it may be NAME=VALUE."""
    name, equals, _ = word.partition("=")
    return f"{name}=…" if equals and is_secret(name) else word


Nodes = Annotated[
    NodeRange,
    BeforeValidator(_nodes),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^\d+(:\d+)?$"},
            ]
        }
    ),
]
Nproc = Annotated[
    int | str,
    BeforeValidator(_nproc),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"enum": ["auto", "gpu", "cpu"]}]}
    ),
]
_DURATION_SCHEMA = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^\d+(\.\d+)?\s*[smhd]?$"},
    ]
}
Grace = Annotated[float, BeforeValidator(_grace), WithJsonSchema(_DURATION_SCHEMA)]
PositiveSeconds = Annotated[
    float, BeforeValidator(_positive_seconds), WithJsonSchema(_DURATION_SCHEMA)
]
Gpus = Annotated[
    str,
    BeforeValidator(_gpus),
    WithJsonSchema({"type": "string", "pattern": r"^(free:[1-9]\d*|\d+(,\d+)*)$"}),
]
Actions = Annotated[
    dict[str, str],
    BeforeValidator(_actions),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {name: {"enum": list(kind.actions)} for name, kind in KINDS.items()},
            "additionalProperties": False,
        }
    ),
]
_TEXT = {"type": "string"}
_HOST_SCHEMA = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("name", "user", "python", "address"), _TEXT),
        "port": {"type": "integer", "minimum": 1, "maximum": MAX_PORT},
        "slots": {"type": "integer", "minimum": 1, "maximum": MAX_SLOTS},
    },
    "required": ["name"],
    "additionalProperties": False,
}
Hosts = Annotated[
    tuple[HostSpec, ...],
    BeforeValidator(_hosts),
    WithJsonSchema(
        {"anyOf": [{"type": "array", "items": {"anyOf": [_TEXT, _HOST_SCHEMA]}}, _TEXT]}
    ),
]
