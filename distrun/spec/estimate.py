"""What users write for `distrun estimate`: GPUs, dimensions, kinds of their own."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from distrun.errors import UsageError, did_you_mean
from distrun.spec.base import Frozen
from distrun.spec.read import validated

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_GPUS = re.compile(r"(?:(?:(\d+)x)?(\d+):)?([A-Za-z][\w.-]*|\d{4}[\w.-]*)|(?:(\d+)x)?(\d+)")
_GPUS_HINT = "for example 8x8:h100, which is nodes x GPUs of a node : kind"
_MAX_RANKS = 1 << 20
_POSITIVE = Field(gt=0, le=10**12)


class Dims(Frozen):
    """The dimensions of a transformer, as `--dims` takes them."""

    layers: int = _POSITIVE
    dim: int = _POSITIVE
    heads: int = _POSITIVE
    ffn: int = _POSITIVE
    vocab: int = _POSITIVE
    kv_heads: int | None = Field(default=None, gt=0)
    """Grouped-query attention; None: as many as heads."""
    head_dim: int | None = Field(default=None, gt=0)
    """None: dim / heads."""
    tied: bool = False
    gated: bool = True
    """SwiGLU; else GELU with two matrices."""
    biases: bool = False
    positions: int = Field(default=0, ge=0)
    """Learned positions; 0: rotary."""
    experts: int = Field(default=0, ge=0)
    chosen: int = Field(default=2, ge=1)


class OwnKind(Frozen):
    """A kind of GPU in a TOML file: a table by its name."""

    memory_gib: float = Field(gt=0, le=10**6)
    memory_gb_per_s: float = Field(gt=0)
    tflops: float = Field(gt=0)
    """Peak of bfloat16, dense."""
    tflops_float32: float | None = Field(default=None, gt=0)
    matmul: float = Field(default=0.7, gt=0, le=1)
    """The part of the peak that large matrix products reach."""
    half_dim: float = Field(default=500, ge=0)
    """Each side of a product of this length halves that part."""
    attention: float = Field(default=0.2, gt=0, le=1)
    link_gb_per_s: float = Field(gt=0)
    """Between the GPUs of a node, busbw."""
    nics: int = Field(default=1, ge=1)
    nic_gbit_per_s: float = Field(gt=0)
    host_gb_per_s: float = Field(default=25, gt=0)


@dataclass(frozen=True)
class Gpus:
    """The GPUs of a job.

    Attributes:
        nnodes: Nodes.
        nproc_per_node: GPUs, and ranks, of a node.
        kind: Its name; None: not known.
    """

    nnodes: int
    nproc_per_node: int
    kind: str | None

    @property
    def world_size(self) -> int:
        """All ranks."""
        return self.nnodes * self.nproc_per_node


def gpus_of(text: str | None, nodes: int | None, nproc_per_node: int | None) -> Gpus:
    """Return what `--gpus`, `--nodes` and `--nproc-per-node` say together.

    Raises:
        UsageError: They contradict one another, or are not numbers.
    """
    match = _GPUS.fullmatch(text.strip()) if text is not None else None
    if text is not None and match is None:
        raise UsageError(f"--gpus {text!r} is not NODESxGPUS:KIND", _GPUS_HINT)
    told = (match[1] or match[4], match[2] or match[5]) if match else (None, None)
    counts = []
    for flag, own, written in (
        ("--nodes", nodes, told[0]),
        ("--nproc-per-node", nproc_per_node, told[1]),
    ):
        here = int(written) if written is not None else None
        if own is not None and here is not None and own != here:
            raise UsageError(f"--gpus {text} and {flag} {own} contradict each other", _GPUS_HINT)
        counts.append(own if own is not None else here)
    nnodes, nproc = (1 if count is None else count for count in counts)
    found = Gpus(nnodes, nproc, match[3] if match else None)
    if not (nnodes > 0 and nproc > 0 and found.world_size <= _MAX_RANKS):
        raise UsageError(
            f"{found.nnodes} nodes of {found.nproc_per_node} GPUs are not from 1 to {_MAX_RANKS}"
            " ranks",
            _GPUS_HINT,
        )
    return found


_EXAMPLE = "layers=32,dim=4096,heads=32,ffn=14336,vocab=128256"


def dims_of(text: str) -> Dims:
    """Return the dimensions in `layers=32,dim=4096,…`.

    Raises:
        UsageError: One is not known, or not a number in its range, or is missing.
    """
    values: dict[str, Any] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = word.partition("=")
        name = key.replace("-", "_")
        if not equals:
            raise UsageError(f"--dims: {word!r} is not NAME=VALUE", "layers=32,dim=4096")
        if name not in Dims.model_fields:
            raise UsageError(f"--dims has no {key!r}", did_you_mean(name, Dims.model_fields))
        if name in values:
            raise UsageError(f"--dims has {key} twice: {values[name]} and {value}", _EXAMPLE)
        is_number = Dims.model_fields[name].annotation is not bool
        if is_number and not (value.isascii() and value.isdigit()):
            raise UsageError(f"--dims: {key}={value} is not a whole number above 0", _EXAMPLE)
        values[name] = value
    needed = [n for n, f in Dims.model_fields.items() if f.is_required() and n not in values]
    if needed:
        raise UsageError(f"--dims lacks {', '.join(needed)}", _EXAMPLE)
    try:
        found = validated(Dims, values, "--dims")
    except UsageError as error:
        raise UsageError(error.message, _EXAMPLE) from None
    if found.experts and found.chosen > found.experts:
        raise UsageError(
            f"--dims: chosen={found.chosen} is above experts={found.experts}",
            f"experts={found.experts},chosen={min(2, found.experts)}",
        )
    return found


def own_kinds(path: Path) -> dict[str, OwnKind]:
    """Return the kinds of a TOML file, by their names in lower case.

    Raises:
        UsageError: It cannot be read, or a value is not in its range.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--kinds {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--kinds {path} is not TOML: {error}", "a table for each kind, as docs/estimate.md has"
        ) from None
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"--kinds {path}: {name!r} is not a table", f"[{name}]")
    return {
        name.lower(): validated(OwnKind, table, f"kind {name} of {path.name}")
        for name, table in tables.items()
    }
