"""Checkpoint files for torch.distributed.checkpoint: safetensors, hashed, committed by rename.

    step-00000200/           appears when everything in it is on disk
      rank-00000.safetensors   what rank 0 wrote: its shards, by name and offset
      .metadata                DCP's own: which tensor has which chunks in which file
      manifest.json            step, SHA-256 and size of each file, run and settings

The layout is DCP's, so a checkpoint loads at any world size and under any sharding. Tensors
are never pickled; `.metadata` is, and is read by an unpickler of our own.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from distrun.dcp.metadata import (
    METADATA,
    CheckpointError,
    inside,
    read_bounded,
    read_metadata,
    size_of,
)
from distrun.dcp.unpickle import PROTOCOL
from distrun.torch_private import StorageInfo

MANIFEST = "manifest.json"
_MAX_MANIFEST_NBYTES = 64 << 20
"""The entry of a file takes 150 bytes: enough for more than 400000 ranks."""
_METADATA_NBYTES, _METADATA_FACTOR = 1 << 16, 8
"""Scalars with short names take 4 times as many bytes in it as in their own file."""


class Writer(StorageWriter):
    """Writes into a directory beside the final one; the coordinator's rename commits it.

    Args:
        path: The path of the checkpoint; it must not exist.
        step: The step, for the manifest.
        then: Called by the coordinator after the commit.
        about: Further fields for the manifest.
    """

    def __init__(
        self,
        path: Path,
        step: int,
        then: Callable[[], None] = lambda: None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._path, self._step, self._then, self._about = path, step, then, about or {}
        self._partial = path.with_name(path.name + ".partial")
        self._rank = 0

    def reset(self, checkpoint_id: Any = None) -> None:
        """Do nothing: no state is kept from one save to the next."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Note the rank."""
        self._rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Make the directory that all ranks share."""
        self._partial.mkdir(parents=True, exist_ok=True)
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Return the plans unchanged: each rank writes one file."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's shards, and hash the file."""
        file = self._partial / f"rank-{self._rank:05d}.safetensors"
        tensors = {}
        for item in plan.items:
            tensor = planner.resolve_data(item)
            assert isinstance(tensor, torch.Tensor), f"{item.index.fqn} is no tensor"
            tensors[chunk_name(item.index)] = tensor.detach().cpu().contiguous().clone()
        save_file(tensors, file)
        _sync(file)
        digest = sha256(file)
        results = [
            WriteResult(
                item.index,
                tensors[chunk_name(item.index)].nbytes,
                StorageInfo(file.name, 0, 0, [digest]),
            )
            for item in plan.items
        ]
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the manifest and commit; called on the coordinator only."""
        stored, digests = {}, {}
        for result in (result for of_rank in results for result in of_rank):
            info = result.storage_data
            digests[info.relative_path] = info.transform_descriptors[0]
            stored[result.index] = StorageInfo(info.relative_path, 0, 0)
        metadata.storage_data = stored
        metadata.storage_meta = StorageMeta()
        (self._partial / METADATA).write_bytes(pickle.dumps(metadata, PROTOCOL))
        digests[METADATA] = sha256(self._partial / METADATA)
        sizes = {name: (self._partial / name).stat().st_size for name in digests}
        manifest = {
            **self._about,
            "step": self._step,
            "files": {n: {"sha256": digests[n], "nbytes": sizes[n]} for n in sorted(digests)},
        }
        (self._partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for written in (METADATA, MANIFEST, "."):  # the shards are on disk already
            _sync(self._partial / written)
        replaced = self._path.with_name(self._path.name + ".replaced")
        if self._path.exists():  # of a run that started from step 0 again in the same directory
            shutil.rmtree(replaced, ignore_errors=True)  # of a save that was killed here
            self._path.rename(replaced)
        self._partial.rename(self._path)
        _sync(self._path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
        self._then()

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Return true: any path is valid."""
        return True

    def storage_meta(self) -> StorageMeta:
        """Return nothing to add."""
        return StorageMeta()


class Reader(FileSystemReader):
    """Reads what `Writer` wrote."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return DCP's own description of the tensors."""
        return read_metadata(Path(self.path))

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read the tensors of the plan."""
        path = Path(self.path)
        for item in plan.items:
            file = inside(path, self.storage_data[item.storage_index].relative_path)
            try:
                with safe_open(file, "pt") as shards:
                    tensor = shards.get_tensor(chunk_name(item.storage_index))
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{file} cannot be read: {error}") from None
            target = planner.resolve_tensor(item).detach()
            try:
                for dim, length in enumerate(item.lengths):
                    tensor = tensor.narrow(dim, item.storage_offsets[dim], length)
                target.copy_(tensor.reshape(target.shape))
            except (IndexError, RuntimeError) as error:
                raise CheckpointError(
                    f"{path / METADATA} does not fit {file.name}: {error}"
                ) from None
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done


def chunk_name(index: MetadataIndex) -> str:
    """Return the name of a chunk in its file: the tensor's name, and the chunk's offsets in it."""
    return index.fqn + ("" if not index.offset else "@" + ",".join(map(str, index.offset)))


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(file, "rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Sync a file, or the names in a directory, to disk: before that a rename is not safe."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def verify(path: Path) -> int:
    """Compare the hash of every file of a checkpoint with its manifest; return the step.

    Raises:
        CheckpointError: A file is missing, truncated or changed.
    """
    step, listed = _listed(path)
    described = sum(nbytes for file, (nbytes, _) in listed.items() if file.name != METADATA)
    if listed[path / METADATA][0] > _METADATA_NBYTES + _METADATA_FACTOR * described:
        raise CheckpointError(f"{path / METADATA} is too long for {described} bytes of tensors")
    for shard, (nbytes, digest) in listed.items():
        try:
            if (found := size_of(shard)) != nbytes:
                raise CheckpointError(f"{shard} has {found} bytes, not {nbytes}")
            if sha256(shard) != digest:
                raise CheckpointError(f"{shard} is not what was written: its SHA-256 differs")
        except OSError as error:
            raise CheckpointError(f"{shard} cannot be read: {error.strerror}") from None
    return step


def read_manifest(path: Path) -> Any:
    """Return the content of the manifest of a checkpoint, any JSON value.

    Raises:
        OSError: It cannot be read.
        ValueError, RecursionError: It is not JSON.
    """
    return json.loads(read_bounded(path / MANIFEST, _MAX_MANIFEST_NBYTES))


def _listed(path: Path) -> tuple[int, dict[Path, tuple[int, str]]]:
    """Return the step, and the size and SHA-256 of each file."""
    file = path / MANIFEST
    try:
        manifest = read_manifest(path)
        listed = {
            inside(path, name): (int(entry["nbytes"]), str(entry["sha256"]))
            for name, entry in manifest["files"].items()
        }
        if path / METADATA not in listed:
            raise KeyError(METADATA)
        return int(manifest["step"]), listed
    except OSError as error:
        raise CheckpointError(f"{path} is not a checkpoint: {MANIFEST}: {error.strerror}") from None
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise CheckpointError(
            f"{file} is not the manifest of a checkpoint: {error!r:.200}"
        ) from None
