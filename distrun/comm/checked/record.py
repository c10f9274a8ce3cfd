"""One rank's call as a line of text that can be compared byte by byte."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from distrun.comm.ops import op_name
from distrun.comm.site import Site

MAX_NBYTES = 500
_SEPARATOR = "\x1f"
_MAX_SHOWN = 90
_MAX_PART = 90


class Record(NamedTuple):
    """A call, as the table of an error shows it."""

    call: str
    dtype: str
    shape: str
    details: str
    file: str
    line: str
    thread: str
    """The thread that called; "" for the one that made the group."""

    @property
    def what(self) -> tuple[str, ...]:
        """The part that must be equal on all ranks: all but the line of code and the thread."""
        return self[:4]

    @property
    def place(self) -> str:
        """The line of code that made the call, and the thread."""
        site = Site(self.file, int(self.line))
        return f"{site} in {self.thread}" if self.thread else str(site)

    def __str__(self) -> str:
        return " ".join(part for part in (self.call, self.details, self.dtype, self.shape) if part)


def encode(
    call: str, tensors: Sequence[Tensor], rule: Mapping[str, Any], site: Site, thread: str = ""
) -> bytes:
    """Return the line for a call, at most `MAX_NBYTES` long.

    Args:
        call: The collective's name.
        tensors: The tensors that this rank passes.
        rule: op, root, dim, sizes; `uneven` means that the length in `dim` may differ, `tree` is
            the structure of the tensors.
        site: The line of code that made the call.
        thread: The thread that made it.
    """
    dim = rule.get("dim", 0) if rule.get("uneven") else None
    paths = getattr(rule.get("tree"), "paths", ("",))
    if len(tensors) == 1 and paths == ("",):
        dtype, shape = _dtype(tensors[0]), _shape(tensors[0], dim)
    else:
        dtype = ", ".join(dict.fromkeys(map(_dtype, tensors)))
        places = zip(paths, tensors, strict=False)
        shapes = "; ".join(f"{path}: {_dtype(x)}{_shape(x, dim)}" for path, x in places)
        shape = f"{len(tensors)} tensors {_shortened(shapes)}" if tensors else ""
    details = " ".join(
        f"{name}={op_name(value) if name == 'op' else value}"
        for name, value in rule.items()
        if name not in ("uneven", "tree") and value is not None
    )
    parts = (call, dtype, shape, details, site.file, str(site.line), thread)
    line = _SEPARATOR.join(parts).encode(errors="replace")
    return line if len(line) <= MAX_NBYTES else _cut(parts)


def decode(line: bytes) -> Record:
    """Return the record that `encode` wrote."""
    return Record(*line.decode(errors="replace").split(_SEPARATOR))


def _dtype(x: Tensor) -> str:
    return str(x.dtype)[6:]  # without "torch."


def _shape(x: Tensor, free_dim: int | None) -> str:
    shape: list[object] = list(x.shape)
    if free_dim is not None:
        shape[free_dim] = "*"
    return "[" + ", ".join(map(str, shape)) + "]"


def _shortened(text: str) -> str:
    """Return a short text that still differs if the whole text differs."""
    if len(text) <= _MAX_SHOWN:
        return text
    digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    return f"{text[: _MAX_SHOWN - 15]}… #{digest}"


def _cut(parts: Sequence[str]) -> bytes:
    """Return a line of limited length that still differs if the parts differ."""
    *what, file, line, thread = parts
    short = [_shortened(part).encode(errors="replace")[:_MAX_PART] for part in what]
    digest = hashlib.blake2b(_SEPARATOR.join(what).encode(errors="replace"), digest_size=6)
    short[-1] += f" #{digest.hexdigest()}".encode()
    where = [file.encode(errors="replace")[-_MAX_PART:], line.encode()]
    where.append(thread.encode(errors="replace")[:_MAX_PART])
    return _SEPARATOR.encode().join([*short, *where])
