"""What a host, a user, a port and the like may be: they end up on command lines of ssh and sh.

Each function takes a value as it was typed and returns it, or raises `Refused` with a sentence.
`shown` is the value as the sentence shows it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from distrun.spec.base import Refused

MAX_PORT = 65535
MAX_SLOTS = 1024
_MAX_NAME, _MAX_LABEL, _MAX_PATH = 255, 63, 4096  # RFC 1035, PATH_MAX
_MAX_SHOWN = 60
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")
_NOT_IN_USERS = re.compile(r"[^A-Za-z0-9._+@-]")  # ada@corp.example is a user of some directories
_NAME_HINT = "a host name has letters, digits, '-', '_' and '.'"


def shown_value(value: object) -> str:
    """Return a value for a message: quoted, without control characters, not too long."""
    if isinstance(value, str) and len(value) > _MAX_SHOWN:
        return f"{value[:_MAX_SHOWN]!r}…"
    text = repr(value)
    return text if len(text) <= 2 * _MAX_SHOWN else f"{text[: 2 * _MAX_SHOWN]}…"


def name_of(value: Any, shown: str = "") -> str:
    """Return the name or address of a host, as ssh is told it."""
    return _required(value, shown, "a host name", _wrong_in_name, _NAME_HINT)


def address_of(value: Any, shown: str = "") -> str:
    """Return the address or name of a host, for the other nodes; brackets are removed."""
    if isinstance(value, str) and re.fullmatch(r"\[[^\[\]]*:[^\[\]]*\]", value):
        value = value[1:-1]
    return _required(value, shown, "an address or a host name", _wrong_in_name, _NAME_HINT)


def user_of(value: Any, shown: str = "") -> str:
    """Return the name of a user."""
    hint = "a user name has letters, digits, '-', '_', '+', '.' and '@'"
    return _required(value, shown, "a user name", _wrong_in_user, hint)


def python_of(value: Any, shown: str = "") -> str:
    """Return the path or the name of an interpreter."""
    hint = "for example python=/opt/venv/bin/python"
    return _required(value, shown, "an interpreter", _wrong_in_path, hint)


def port_of(value: Any, shown: str = "") -> int:
    """Return a port."""
    shown = shown or shown_value(value)
    if (number := _number(value)) is None:
        raise Refused(f"{shown} is not a port number", "for example port 2222")
    if not 1 <= number <= MAX_PORT:
        raise Refused(f"{shown} is not a port from 1 to {MAX_PORT}", "sshd's own is 22")
    return number


def slots_of(value: Any, shown: str = "") -> int:
    """Return a number of ranks."""
    shown = shown or shown_value(value)
    if (number := _number(value)) is None:
        raise Refused(f"{shown} is not a number of ranks", "for example slots=4")
    if not 1 <= number <= MAX_SLOTS:
        hint = "for example slots=4; port=2222 is the port of sshd"
        raise Refused(f"{shown} is not a number of ranks from 1 to {MAX_SLOTS}", hint)
    return number


def _number(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _required(value: Any, shown: str, what: str, wrong_in: Any, hint: str) -> str:
    shown = shown or shown_value(value)
    if not isinstance(value, str):
        raise Refused(f"{shown} is not {what}: it is not a string", hint)
    if wrong := wrong_in(value):
        raise Refused(f"{shown} is not {what}: it {wrong}", hint)
    return value


def _wrong_in_name(name: str) -> str:
    if wrong := _wrong_in_word(name, _MAX_NAME):
        return wrong
    if ":" in name:
        return "" if _is_ipv6(name) else "is no IPv6 address"
    if char := _NOT_IN_NAMES.search(name):
        return f"holds {char[0]!r}"
    if re.fullmatch(r"[0-9][0-9.]*", name):  # the resolver reads 2 as 0.0.0.2
        return "" if _is_ipv4(name) else "is a number, but no IPv4 address"
    *labels, last = name.split(".")
    if not all(labels) or not (labels or last):  # a dot at the end is allowed
        return "has an empty part"
    if max(map(len, (*labels, last))) > _MAX_LABEL:
        return f"has a part of more than {_MAX_LABEL} characters"
    return ""


def _wrong_in_user(user: str) -> str:
    char = _NOT_IN_USERS.search(user)
    return _wrong_in_word(user, _MAX_NAME) or (f"holds {char[0]!r}" if char else "")


def _wrong_in_path(path: str) -> str:
    odd = next((char for char in path if not char.isprintable()), "")
    return _wrong_in_word(path, _MAX_PATH) or (f"holds {odd!r}" if odd else "")


def _wrong_in_word(word: str, limit: int) -> str:
    if not word:
        return "is empty"
    if word.startswith("-"):
        return "begins with '-', as an option does"
    return f"is longer than {limit} characters" if len(word) > limit else ""


def _is_ipv6(name: str) -> bool:
    address, percent, zone = name.partition("%")
    if percent and not re.fullmatch(r"[A-Za-z0-9._-]+", zone):
        return False
    try:
        return bool(ipaddress.IPv6Address(address))
    except ValueError:
        return False


def _is_ipv4(name: str) -> bool:
    try:
        return bool(ipaddress.IPv4Address(name))
    except ValueError:
        return False
