"""The key with which the nodes of a run dial in to its head, and where the head listens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distrun.env import DIAL_KEY, DIAL_KEY_FILE, DIAL_PORT
from distrun.errors import MachineError, UsageError

_LEAST_CHARS = 32
_MOST_NBYTES = 4096
_DEFAULT_PORT = 29501
"""Beside torchrun's 29500."""
_MAKE = "`openssl rand -hex 32` makes one; all nodes of a run have the same"


def has_key(environ: Mapping[str, str]) -> bool:
    """Return whether the nodes dial in to the head."""
    return bool(environ.get(DIAL_KEY) or environ.get(DIAL_KEY_FILE))


def key_of(environ: Mapping[str, str]) -> bytes:
    """Return the key.

    Raises:
        UsageError: It is too short.
        MachineError: Its file cannot be read.
    """
    name, key = DIAL_KEY, environ.get(DIAL_KEY, "")
    if not key:
        name, path = DIAL_KEY_FILE, Path(environ[DIAL_KEY_FILE])
        try:
            with path.open("rb") as file:
                key = file.read(_MOST_NBYTES).decode("latin-1")
        except OSError as error:
            raise MachineError(f"{name}={str(path)!r}: {error.strerror}", _MAKE) from None
    key = key.strip()
    if len(key) < _LEAST_CHARS:
        raise UsageError(
            f"the key in {name} has {len(key)} characters, at least {_LEAST_CHARS} are needed",
            _MAKE,
        )
    return key.encode()


def port_of(environ: Mapping[str, str]) -> int:
    """Return the port where the head listens for nodes.

    Raises:
        UsageError: The variable is no port.
    """
    value = environ.get(DIAL_PORT, "").strip()
    if not value:
        return _DEFAULT_PORT
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 1 << 16:
        raise UsageError(f"{DIAL_PORT}={value!r} is no port", "a number from 1 to 65535")
    return int(value)
