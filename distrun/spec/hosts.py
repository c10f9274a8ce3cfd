"""The machines of a job, as `--hosts` and the key `hosts` name them.

In `--hosts`, `:N` after a host is the port of its sshd; in a hostfile (`spec/hostfile.py`)
`host:N` is N ranks, as in Horovod's and MPICH's, and `port=N` is the port.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError, field_validator

from distrun.errors import UsageError, did_you_mean
from distrun.spec.base import Frozen, Refused
from distrun.spec.host_ranges import MAX_HOSTS, names_in
from distrun.spec.host_values import (
    address_of,
    name_of,
    port_of,
    python_of,
    shown_value,
    slots_of,
    user_of,
)

_HINT = "for example a,user@b:2222,n[01-04]"
_BRACKETS_AND_PORT = re.compile(r"(\[[^\[\]]*:[^\[\]]*\])(?::(.*))?", re.DOTALL)


class HostSpec(Frozen):
    """A machine that ssh reaches."""

    name: str
    """What ssh is told, without user and port: a name, an alias of ssh_config, an address."""
    user: str | None = None
    port: int | None = None
    """Of sshd."""
    slots: int | None = None
    """Ranks on it."""
    python: str | None = None
    """The interpreter there."""
    address: str | None = None
    """At which the other nodes reach it."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_possible(cls, value: Any, info: Any) -> Any:
        if value is None and info.field_name != "name":
            return None
        return READERS[info.field_name](value)

    @property
    def label(self) -> str:
        """Its name in messages, with user and port if they are given; `--hosts` reads it."""
        name = f"[{self.name}]" if self.port and ":" in self.name else self.name
        user = f"{self.user}@" if self.user else ""
        return f"{user}{name}:{self.port}" if self.port else f"{user}{name}"

    @property
    def login(self) -> tuple[str, str | None, int | None]:
        """What makes two hosts the same: name, user and port."""
        return self.name.lower(), self.user, self.port


READERS: dict[str, Any] = {
    "name": name_of,
    "user": user_of,
    "port": port_of,
    "slots": slots_of,
    "python": python_of,
    "address": address_of,
}
"""Field of a host -> the function that reads it."""


class Endpoint(NamedTuple):
    """The parts of `user@host:number`, unread."""

    user: str | None
    pattern: str
    """May hold ranges, or brackets around an IPv6 address."""
    number: str | None


def endpoint_of(text: str) -> Endpoint:
    """Return the parts; several colons without brackets are an IPv6 address without a number."""
    user, at, rest = text.rpartition("@")
    number: str | None = None
    if match := _BRACKETS_AND_PORT.fullmatch(rest):
        rest, number = match[1], match[2]
    elif rest.count(":") == 1:
        rest, _, number = rest.partition(":")
    return Endpoint(user if at else None, rest, number)


def hosts_of(value: object) -> tuple[HostSpec, ...]:
    """Read hosts: a text such as `a,user@b:2222,n[01-04]`, or a list of texts and tables.

    Args:
        value: The text, or the list; a table has the fields of `HostSpec`.

    Returns:
        The hosts in their order; ranges are expanded.

    Raises:
        UsageError: It names the host that is wrong, is there twice, or is one too many.
    """
    try:
        return _hosts(value)
    except Refused as refused:
        raise UsageError(str(refused), refused.hint or _HINT) from None


def _hosts(value: object) -> tuple[HostSpec, ...]:
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, (list, tuple)):
        raise Refused(f"{shown_value(value)} is not a list of hosts such as a,b")
    found: list[HostSpec] = []
    for entry in entries:
        for host in _entry(entry, MAX_HOSTS - len(found)):
            found.append(host)
            if len(found) > MAX_HOSTS:
                raise Refused(f"there are more than {MAX_HOSTS} hosts", f"{MAX_HOSTS} is the limit")
    _require_once(found)
    return tuple(found)


def _entry(entry: object, room: int) -> Iterator[HostSpec]:
    if isinstance(entry, HostSpec):
        yield entry
    elif isinstance(entry, Mapping):
        yield from _of_table(entry, room)
    elif isinstance(entry, str):
        for text in _split(entry):
            user, pattern, number = endpoint_of(text)
            port = None if number is None else port_of(number, shown_value(text))
            names = names_in(pattern, room)
            room -= len(names)
            yield from (host_of(name=name, user=user, port=port) for name in names)
    else:
        raise Refused(f"{shown_value(entry)} is neither the name nor the table of a host")


def _split(text: str) -> Iterator[str]:
    """Yield the parts between commas; those within brackets belong to a range."""
    start, inside = 0, False
    for index, char in enumerate(f"{text},"):
        if char in "[]":
            inside = char == "["
        elif char == "," and (not inside or index == len(text)):
            yield text[start:index].strip(" \t")
            start = index + 1


def _of_table(table: Mapping[Any, Any], room: int) -> Iterator[HostSpec]:
    for key in table:
        if key not in READERS:
            hint = did_you_mean(str(key), READERS)
            raise Refused(f"unknown key {shown_value(key)} of a host", hint)
    if not isinstance(name := table.get("name"), str):
        hint = 'for example {name = "b", slots = 4}'
        raise Refused(f"{shown_value(dict(table))} has no name", hint)
    for each in names_in(name, room):
        yield host_of(**{**table, "name": each})


def host_of(**fields: Any) -> HostSpec:
    """Return a host.

    Raises:
        Refused: A field is wrong.
    """
    try:
        return HostSpec.model_validate(fields)
    except ValidationError as error:
        refused = error.errors()[0].get("ctx", {}).get("error")
        assert isinstance(refused, Refused), error  # all fields have validators of their own
        raise refused from None


def _require_once(hosts: Iterable[HostSpec]) -> None:
    seen = set()
    for host in hosts:
        if host.login in seen:
            raise Refused(f"{shown_value(host.label)} is named twice", "leave one of them out")
        seen.add(host.login)
