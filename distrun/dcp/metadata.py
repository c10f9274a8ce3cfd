"""Reads `.metadata`, DCP's own description of a checkpoint, and compares it with the files."""

from __future__ import annotations

import errno
import math
import operator
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from torch.distributed.checkpoint.metadata import (
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)

from distrun.dcp.metadata_classes import NAMES
from distrun.dcp.unpickle import UnpickleError, kind, unpickle

METADATA = ".metadata"
_MAX_NBYTES = 256 << 20
"""A chunk takes about 150 bytes, a tensor 220: enough for a million of them."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the message has the file and the cause."""


def read_metadata(path: Path) -> Metadata:
    """Read a checkpoint's `.metadata`, without executing anything in it.

    Raises:
        CheckpointError: It is missing, broken, or not DCP's.
    """
    file = path / METADATA
    try:
        found = unpickle(read_bounded(file, _MAX_NBYTES), NAMES)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None
    except UnpickleError as error:
        raise CheckpointError(f"{file} is not the metadata of a checkpoint: {error}") from None
    if not isinstance(found, Metadata):
        raise CheckpointError(f"{file} is not the metadata of a checkpoint: it holds {kind(found)}")
    return found


def require_consistent(path: Path, metadata: Metadata) -> None:
    """Refuse metadata that describes more than the files can hold.

    So what is allocated from it, such as a tensor to load into, is no larger than the files.

    Raises:
        CheckpointError: A chunk is missing, outside of its tensor, or too large for its file.
    """
    needed: Counter[str] = Counter()
    placed = set()
    for name, tensor in metadata.state_dict_metadata.items():
        assert isinstance(tensor, TensorStorageMetadata)  # the unpickler accepts no other class
        if problem := _problem(tensor):
            raise CheckpointError(f"{path / METADATA} describes {name!r:.100} {problem}")
        for chunk in tensor.chunks:
            index = MetadataIndex(name, chunk.offsets)
            placed.add(index)
            if index in metadata.storage_data:
                file = metadata.storage_data[index].relative_path
                needed[file] += _count(chunk.sizes) * tensor.properties.dtype.itemsize
    if placed != metadata.storage_data.keys():
        raise CheckpointError(f"{path / METADATA} does not place each chunk in a file")
    for name, nbytes in needed.items():
        file = inside(path, name)
        try:
            held = size_of(file)
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None
        if nbytes > held:
            raise CheckpointError(f"{file} has {held} bytes, and should hold {nbytes} of tensors")


def _problem(tensor: TensorStorageMetadata) -> str:
    """Return what is wrong with the chunks of a tensor, "" if they fill it."""
    for chunk in tensor.chunks:
        if not len(chunk.offsets) == len(chunk.sizes) == len(tensor.size):
            return "with a chunk of other dimensions"
        ends = map(operator.add, chunk.offsets, chunk.sizes)
        if any(map(operator.gt, ends, tensor.size)):
            return "with a chunk that reaches beyond it"
    filled, count = sum(_count(chunk.sizes) for chunk in tensor.chunks), _count(tensor.size)
    return f"with {filled} of its {count} numbers" if filled != count else ""


def _count(size: Iterable[int]) -> int:
    return math.prod(size)


def inside(path: Path, name: str) -> Path:
    """Return the path of a file of a checkpoint; forged metadata may name any file.

    Raises:
        CheckpointError: The name is outside of the directory, or not a file name.
    """
    if not name or Path(name).name != name or name == ".." or not name.isprintable():
        raise CheckpointError(f"{path} names the file {name!r:.100}, which is outside of it")
    return path / name


def size_of(file: Path) -> int:
    """Return the size of a file in bytes.

    Raises:
        OSError: It is missing, or not a regular file: to read a FIFO would never end.
    """
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    return found.st_size


def read_bounded(file: Path, max_nbytes: int) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: It cannot be read, or is too long.
    """
    if (nbytes := size_of(file)) > max_nbytes:
        raise OSError(errno.EFBIG, f"it has {nbytes} bytes, the limit is {max_nbytes}")
    with open(file, "rb") as stream:
        return stream.read(max_nbytes)
