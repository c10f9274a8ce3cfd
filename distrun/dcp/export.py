"""The model of a checkpoint as one safetensors file: python -m distrun.dcp.export DIR OUT.

DIR is a checkpoint, or a directory of them, of which the newest good one is used. It needs no
process group, and holds at most one tensor in memory. It prints one line of JSON.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata

from distrun.dcp.choose import committed, newest_good
from distrun.dcp.metadata import METADATA, CheckpointError, inside, read_metadata
from distrun.dcp.storage import chunk_name, read_manifest

Chunks = dict[str, list[tuple[MetadataIndex, str]]]
"""Name of a tensor -> its chunks, and the file of each."""

_PREFIX = "model."
_MISFITS = (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError)
"""What unpickled metadata that does not fit raises; CheckpointError is one of them."""
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class StoredModel:
    """The model of a checkpoint."""

    path: Path
    step: int
    passed_over: list[str]
    """The problems of newer checkpoints."""
    metas: dict[str, TensorStorageMetadata]
    _chunks: Chunks

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each tensor with its plain name, one in memory at a time.

        Raises:
            CheckpointError: The files do not hold all of it.
        """
        try:
            for name, meta in self.metas.items():
                yield name.removeprefix(_PREFIX), _whole(self.path, name, meta, self._chunks)
        except _MISFITS as error:
            raise _misfit(self.path, error) from None


def open_model(where: Path) -> StoredModel:
    """Find the newest good checkpoint, and the model in it.

    Args:
        where: A checkpoint, or a directory of them.

    Raises:
        CheckpointError: No checkpoint is whole.
    """
    paths = committed(where) or [where]
    path, problems = newest_good(paths)
    if path is None:
        of_all = f"none of {len(paths)} checkpoints is whole: " if len(paths) > 1 else ""
        raise CheckpointError(of_all + problems[0])
    step = int(read_manifest(path)["step"])
    metadata = read_metadata(path)
    try:
        model, chunks = _model(metadata), _chunks(metadata)
    except _MISFITS as error:
        raise _misfit(path, error) from None
    if not model:
        raise CheckpointError(f"{path} holds no model: no tensor is called {_PREFIX}…")
    return StoredModel(path, step, problems, model, chunks)


def export(where: Path, out: Path) -> dict[str, Any]:
    """Write the model; return what was written.

    Raises:
        CheckpointError: No checkpoint is whole.
        OSError: The file cannot be written; an older file of this name is unchanged.
    """
    stored = open_model(where)
    try:
        header = _header(stored.metas, stored.step)
        _write(out, header, (tensor for _, tensor in stored.tensors()))
    except _MISFITS as error:
        raise _misfit(stored.path, error) from None
    return told(stored)


def told(stored: StoredModel) -> dict[str, Any]:
    """Return what is printed of a model that was exported."""
    return {
        "checkpoint": str(stored.path),
        "step": stored.step,
        "tensors": len(stored.metas),
        "parameters": sum(math.prod(meta.size) for meta in stored.metas.values()),
        "passed_over": stored.passed_over,
    }


def _misfit(path: Path, error: Exception) -> CheckpointError:
    if isinstance(error, CheckpointError):
        return error
    return CheckpointError(f"{path / METADATA} does not fit the files: {error}")


def _model(metadata: Metadata) -> dict[str, TensorStorageMetadata]:
    """Return the model's tensors, wide elements first, so that each begins aligned."""
    model = {
        name: meta
        for name, meta in metadata.state_dict_metadata.items()
        if name.startswith(_PREFIX) and isinstance(meta, TensorStorageMetadata)
    }
    ordered = sorted(model.items(), key=lambda item: (-item[1].properties.dtype.itemsize, item[0]))
    return dict(ordered)


def _chunks(metadata: Metadata) -> Chunks:
    chunks: Chunks = {}
    for index, info in metadata.storage_data.items():
        chunks.setdefault(index.fqn, []).append((index, info.relative_path))
    return chunks


def _header(model: dict[str, TensorStorageMetadata], step: int) -> bytes:
    """Return the start of a safetensors file: the length of the header, and the header as JSON."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt", "step": str(step)}}
    start = 0
    for name, meta in model.items():
        end = start + math.prod(meta.size) * meta.properties.dtype.itemsize
        entries[name.removeprefix(_PREFIX)] = {
            "dtype": _DTYPES[meta.properties.dtype],
            "shape": list(meta.size),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write(out: Path, header: bytes, tensors: Iterable[Tensor]) -> None:
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        with open(partial, "xb") as file:
            file.write(header)
            for tensor in tensors:
                file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _whole(path: Path, name: str, meta: TensorStorageMetadata, chunks: Chunks) -> Tensor:
    """Put a tensor together from the chunks that the ranks wrote."""
    whole = torch.empty(meta.size, dtype=meta.properties.dtype)
    filled = 0
    for index, file in chunks[name]:
        part = _chunk(path, file, index)
        target = whole
        for dim, start in enumerate(index.offset or ()):
            target = target.narrow(dim, start, part.shape[dim])
        target.copy_(part)
        filled += part.numel()
    if filled != whole.numel():
        raise CheckpointError(
            f"{path} holds {filled} of the {whole.numel()} numbers of {name.removeprefix(_PREFIX)}"
        )
    return whole


def _chunk(path: Path, name: str, index: MetadataIndex) -> Tensor:
    file = inside(path, name)
    try:
        with safe_open(file, "pt") as shards:
            return shards.get_tensor(chunk_name(index))  # type: ignore[no-any-return]
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from None


def main(where: str, out: str) -> None:
    """Export, and print the result."""
    try:
        answer = export(Path(where), Path(out))
    except CheckpointError as error:
        answer = {"broken": str(error)}
    except OSError as error:
        answer = {"machine": f"{error.filename or out}: {error.strerror}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
