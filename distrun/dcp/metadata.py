"""Reading `.metadata`, DCP's own description of a checkpoint, and holding it against the files."""

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
"""Some 150 bytes are written for a chunk, and 220 for a tensor: this is a million of them."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the text names the file and the cause."""


def read_metadata(path: Path) -> Metadata:
    """Read a checkpoint's `.metadata`, and execute nothing that it may hold.

    Raises:
        CheckpointError: It is missing, broken, or not DCP's.
    """
    file = path / METADATA
    try:
        found = unpickle(read_bounded(file, _MAX_NBYTES), NAMES)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None
    except UnpickleError as error:
        raise CheckpointError(f"{file} is no metadata of a checkpoint: {error}") from None
    if not isinstance(found, Metadata):
        raise CheckpointError(f"{file} is no metadata of a checkpoint: it holds {kind(found)}")
    return found


def require_consistent(path: Path, metadata: Metadata) -> None:
    """Refuse metadata that describes what the files cannot hold.

    Whatever is made after it, such as a tensor to be loaded into, is no larger than they are.

    Raises:
        CheckpointError: A chunk is missing, outside of its tensor, or too large for its file.
    """
    needed: Counter[str] = Counter()
    placed = set()
    for name, tensor in metadata.state_dict_metadata.items():
        assert isinstance(tensor, TensorStorageMetadata)  # the unpickler knows no other
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
    """Return a file of a checkpoint; its metadata may be forged, and name another.

    Raises:
        CheckpointError: The name leaves the directory, or is none.
    """
    if not name or Path(name).name != name or name == ".." or not name.isprintable():
        raise CheckpointError(f"{path} speaks of {name!r:.100}, which is outside of it")
    return path / name


def size_of(file: Path) -> int:
    """Return the size of a file in bytes.

    Raises:
        OSError: It is missing, or no regular file: a FIFO would never end.
    """
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    return found.st_size


def read_bounded(file: Path, max_nbytes: int) -> bytes:
    """Return what a file holds.

    Raises:
        OSError: It cannot be read, or is longer.
    """
    if (nbytes := size_of(file)) > max_nbytes:
        raise OSError(errno.EFBIG, f"it has {nbytes} bytes, the limit is {max_nbytes}")
    with open(file, "rb") as stream:
        return stream.read(max_nbytes)
