"""What one rank says of its call: a line of text that can be compared byte by byte."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from distrun.comm.site import Site

MAX_NBYTES = 500
_SEPARATOR = "\x1f"
_MAX_SHOWN = 120


class Record(NamedTuple):
    """A call, as the table of an error shows it."""

    call: str
    dtype: str
    shape: str
    details: str
    file: str
    line: str

    @property
    def what(self) -> tuple[str, ...]:
        """What has to be equal on all ranks: everything but the line of code."""
        return self[:4]

    @property
    def site(self) -> Site:
        """The line of code that made the call."""
        return Site(self.file, int(self.line))

    def __str__(self) -> str:
        return " ".join(part for part in (self.call, self.details, self.dtype, self.shape) if part)


def encode(call: str, tensors: Sequence[Tensor], rule: Mapping[str, Any], site: Site) -> bytes:
    """Return the line for a call, at most `MAX_NBYTES` long.

    Args:
        call: The collective's name.
        tensors: What this rank gives.
        rule: op, root, dim, sizes; `uneven` says that the length in `dim` may differ.
        site: Where the call was made.
    """
    dim = rule.get("dim", 0) if rule.get("uneven") else None
    if len(tensors) == 1:
        dtype, shape = _dtype(tensors[0]), _shape(tensors[0], dim)
    else:
        dtype = _shortened(", ".join(dict.fromkeys(map(_dtype, tensors))))
        shapes = "; ".join(f"{_dtype(x)}{_shape(x, dim)}" for x in tensors)
        shape = f"{len(tensors)} tensors: {_shortened(shapes)}" if tensors else ""
    details = " ".join(
        f"{name}={value}"
        for name, value in rule.items()
        if name != "uneven" and value is not None and str(value)
    )
    file = site.file if len(site.file) < _MAX_SHOWN else "…" + site.file[-_MAX_SHOWN:]
    parts = (call, dtype, shape, _shortened(details), file, str(site.line))
    line = _SEPARATOR.join(parts).encode(errors="replace")
    return line if len(line) <= MAX_NBYTES else _digested(parts)


def decode(line: bytes) -> Record:
    """Return what `encode` put into a line."""
    return Record(*line.decode(errors="replace").split(_SEPARATOR))


def _dtype(x: Tensor) -> str:
    return str(x.dtype)[6:]  # without "torch."


def _shape(x: Tensor, free_dim: int | None) -> str:
    shape: list[object] = list(x.shape)
    if free_dim is not None:
        shape[free_dim] = "*"
    return "[" + ", ".join(map(str, shape)) + "]"


def _shortened(text: str) -> str:
    """Return text that is short, and still differs where the whole differs."""
    if len(text) <= _MAX_SHOWN:
        return text
    digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    return f"{text[: _MAX_SHOWN - 15]}… #{digest}"


def _digested(parts: Sequence[str]) -> bytes:
    """Cut what is left too long, as file names in other scripts than Latin are."""
    call, dtype, shape, details, file, line = parts
    return _SEPARATOR.join((call, dtype, shape, details, file[-30:], line)).encode(errors="replace")
