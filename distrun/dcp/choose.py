"""Which checkpoint to go on from, and whether it fits the model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from distrun.dcp.storage import CheckpointError, read_metadata, verify

Shapes = Mapping[str, tuple[int, ...]]


def committed(directory: Path) -> list[Path]:
    """Return the checkpoints that were finished, the oldest first.

    By when, and not by step: a directory may hold later steps of an earlier run.
    """
    finished = []
    for path in directory.glob("step-*"):
        try:
            # .replaced: one that a kill kept from giving way to its successor
            step = path.name[5:].removesuffix(".replaced")
            if step.isdigit():
                finished.append((path.stat().st_mtime_ns, int(step), path))
        except OSError:  # dropped meanwhile
            continue
    return [path for _, _, path in sorted(finished)]


def drop_old(directory: Path, keep: int) -> None:
    """Remove all checkpoints but the last `keep`."""
    for path in committed(directory)[:-keep]:
        shutil.rmtree(path, ignore_errors=True)


def newest_good(paths: Sequence[Path]) -> tuple[Path | None, list[str]]:
    """Return the last of some checkpoints that is whole, and what is wrong with those after it."""
    problems = []
    for path in reversed(paths):
        try:
            verify(path)
            read_metadata(path)
        except CheckpointError as error:
            problems.append(str(error))
        else:
            return path, problems
    return None, problems


def require_same_model(path: Path, here: Shapes, there: Shapes) -> None:
    """Compare the tensors of a model with those of a checkpoint.

    Raises:
        CheckpointError: Names or shapes differ; the first is told.
    """
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise CheckpointError(
                f"{path} is of another model: {name} is {_shape(there.get(name))} there,"
                f" {_shape(here.get(name))} here"
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape)) or "a scalar"
