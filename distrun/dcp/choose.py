"""Which checkpoint to go on from, and whether it fits the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from distrun.dcp.storage import CheckpointError, read_metadata, verify

Shapes = Mapping[str, tuple[int, ...]]


def committed(directory: Path) -> list[Path]:
    """Return the checkpoints that were finished, the oldest first."""
    found = directory.glob("step-*")
    return sorted((p for p in found if p.name[5:].isdigit()), key=lambda p: int(p.name[5:]))


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
