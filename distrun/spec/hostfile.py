"""Reads a hostfile: a host on each line, with the number of its ranks.

Read are `host slots=4` (distrun's and DeepSpeed's), `host slots=4 max_slots=8` (Open MPI's),
`host:4` (Horovod's and MPICH's) and bare names; Slurm's ranges work in all of them.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from distrun.errors import UsageError, did_you_mean
from distrun.spec.base import Refused
from distrun.spec.host_ranges import MAX_HOSTS, names_in
from distrun.spec.host_values import shown_value, slots_of
from distrun.spec.hosts import READERS, HostSpec, endpoint_of, host_of

MAX_NBYTES = 1 << 20
_FILE_HINT = "--hostfile names a file with a host on each line, such as: node1 slots=4"
_WORD = re.compile(r"[^ \t=]+[ \t]*=[ \t]*[^ \t]*|[^ \t]+")  # Open MPI allows `slots = 4`
_COMMENT = re.compile(r"(^|[ \t])#.*")
_OPTIONS = {name: reader for name, reader in READERS.items() if name != "name"}
_OF_OPEN_MPI = ("max_slots", "max-slots")
"""A limit for more ranks than slots, of which distrun never starts any: read and not used."""


class _Entry(NamedTuple):
    """A host, and where it is in the file."""

    host: HostSpec
    line: int
    column: int


def read_hostfile(path: Path) -> tuple[HostSpec, ...]:
    """Read a hostfile.

    Raises:
        UsageError: It cannot be read, or a line is wrong: with file, line and column.
    """
    return hosts_in(_content(path), str(path) if str(path).isprintable() else repr(str(path)))


def hosts_in(data: bytes, source: str) -> tuple[HostSpec, ...]:
    """Return the hosts of a hostfile in their order; ranges are expanded.

    Args:
        data: Its content.
        source: Its name in messages.

    Raises:
        UsageError: A line is wrong, a host is there twice, or there is none.
    """
    entries: list[_Entry] = []
    for number, line in enumerate(_text(data, source).split("\n"), 1):
        entries += _entries(line, number, source, MAX_HOSTS - len(entries))
    if not entries:
        raise UsageError(f"hostfile {source} names no host", _FILE_HINT)
    _require_once(entries, source)
    return tuple(entry.host for entry in entries)


def _content(path: Path) -> bytes:
    """Return the content of a regular file: a pipe could wait for ever, a device has no end."""
    shown = repr(str(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                what = "is a directory" if stat.S_ISDIR(mode) else "is not a regular file"
                raise UsageError(f"hostfile {shown} {what}", _FILE_HINT)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_NBYTES + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: the path holds NUL, or is no text
        has_nul = "\0" in str(path)
        reason = getattr(error, "strerror", None) or (
            "its name has a NUL" if has_nul else str(error)
        )
        raise UsageError(f"hostfile {shown}: {reason}", _FILE_HINT) from None
    if len(data) > MAX_NBYTES:
        raise UsageError(f"hostfile {shown} is longer than {MAX_NBYTES >> 20} MiB", _FILE_HINT)
    return data


def _text(data: bytes, source: str) -> str:
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode().split("\n")
        where = f"{source}:{len(before)}:{len(before[-1]) + 1}"
        byte = data[error.start]
        raise UsageError(f"{where}: the byte 0x{byte:02x} is not UTF-8", _FILE_HINT) from None


def _entries(line: str, number: int, source: str, room: int) -> Iterator[_Entry]:
    """Yield the hosts of a line: several if it holds a range, none if it is a comment."""
    fields: dict[str, Any] = {}
    names: list[str] = []
    first: int | None = None
    for word in _WORD.finditer(_COMMENT.sub("", line.removesuffix("\r"))):
        try:
            if first is None:
                first = word.start() + 1
                names = _read_host(word[0], fields, room)
            else:
                _read_option(word[0], fields)
        except Refused as refused:
            where = f"{source}:{number}:{word.start() + 1}"
            raise UsageError(f"{where}: {refused}", refused.hint or _FILE_HINT) from None
    for name in names:
        yield _Entry(host_of(name=name, **fields), number, first or 1)


def _read_host(word: str, fields: dict[str, Any], room: int) -> list[str]:
    """Return the names that the first word of a line stands for; add what else it says."""
    user, pattern, number = endpoint_of(word)
    names = names_in(pattern, room)
    for name in names:
        READERS["name"](name)
    if user is not None:
        fields["user"] = READERS["user"](user)
    if number is not None:
        fields["slots"] = slots_of(number, shown_value(word))
    return names


def _read_option(word: str, fields: dict[str, Any]) -> None:
    """Add what a further word of a line says."""
    key, equals, value = (part.strip(" \t") for part in word.partition("="))
    shown = shown_value(word)
    if not equals:
        raise Refused(f"{shown} is not KEY=VALUE", _FILE_HINT)
    if key in _OF_OPEN_MPI:
        slots_of(value, shown)
        return
    if key not in _OPTIONS:
        hint = did_you_mean(key, [*_OPTIONS, "max_slots"])
        raise Refused(f"unknown key {shown_value(key)}", hint)
    if key in fields:
        raise Refused(f"{shown} gives {key} twice on this line", "leave one of them out")
    fields[key] = _OPTIONS[key](value, shown)


def _line_of(host: HostSpec) -> str:
    """Return the line of a host with its login and its slots."""
    port = f" port={host.port}" if host.port else ""
    return f"{host.model_copy(update={'port': None}).label}{port} slots={host.slots}"


def _require_once(entries: list[_Entry], source: str) -> None:
    """Refuse a host that is there twice, as Open MPI's users write it for two ranks."""
    seen: dict[object, int] = {}
    for host, line, column in entries:
        if host.login in seen:
            slots = [each.host.slots for each in entries if each.host.login == host.login]
            once = _line_of(host.model_copy(update={"slots": len(slots)}))
            raise UsageError(
                f"{source}:{line}:{column}: {host.label!r} is on line {seen[host.login]} already",
                "leave one of them out" if any(slots) else f"for {len(slots)} ranks on it: {once}",
            )
        seen[host.login] = line
