"""Which checkpoint to resume from, and whether it fits the model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distrun.dcp.metadata import CheckpointError, read_metadata, require_consistent
from distrun.dcp.storage import read_manifest, verify
from distrun.env import RUN_DIR

Shapes = Mapping[str, tuple[int, ...]]


def place_of(named: str) -> tuple[Path | None, str]:
    """Return the directory of a run's checkpoints, or None, and the name of the run, or ""."""
    run = os.environ.get(RUN_DIR)
    directory = named or (f"{run}/checkpoints" if run else "")
    torchruns = os.environ.get("TORCHELASTIC_RUN_ID", "none")  # its default: no name
    return Path(directory) if directory else None, run or ("" if torchruns == "none" else torchruns)


def candidates(wanted: str, directory: Path | None, run: str) -> list[Path]:
    """Return the checkpoints to resume from, the best last.

    A world that the launcher has restarted resumes from what its run has saved, whatever
    `wanted` says.

    Args:
        wanted: "auto", "none", or a path.
        directory: The directory of the checkpoints, if there is one.
        run: The name of this run.
    """
    there = committed(directory) if directory else []
    if wanted == "auto":
        return there
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    own = [path for path in there if restarted and run and about(path).get("run") == run]
    return own if wanted == "none" else [Path(wanted), *own]


def committed(directory: Path) -> list[Path]:
    """Return the checkpoints that were finished, the oldest first.

    They are sorted by time, not by step: a directory may hold later steps of an earlier run.
    """
    finished = []
    for path in directory.glob("step-*"):
        try:
            # .replaced: a kill came before its successor had taken its name
            step = path.name[5:].removesuffix(".replaced")
            if step.isdigit():
                finished.append((path.stat().st_mtime_ns, int(step), path))
        except OSError:  # removed meanwhile
            continue
    return [path for _, _, path in sorted(finished)]


def about(path: Path) -> dict[str, Any]:
    """Return the fields of a manifest beside its files; {} if there is none."""
    try:
        manifest = read_manifest(path)
    except (OSError, ValueError, RecursionError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def differing(path: Path, settings: Mapping[str, Any]) -> list[str]:
    """Return how the settings of a checkpoint's run differ from these, one text each."""
    theirs = about(path).get("settings")
    kept = theirs if isinstance(theirs, dict) else {}
    return [
        f"{name} was {kept[name]}, is {value}"
        for name, value in settings.items()
        if name in kept and kept[name] != value
    ]


def drop_old(directory: Path, keep: int) -> None:
    """Remove all checkpoints but the last `keep`."""
    for path in committed(directory)[:-keep]:
        shutil.rmtree(path, ignore_errors=True)


def newest_good(paths: Sequence[Path]) -> tuple[Path | None, list[str]]:
    """Return the last whole checkpoint of a list, and what is wrong with those after it."""
    problems = []
    for path in reversed(paths):
        try:
            verify(path)
            require_consistent(path, read_metadata(path))
        except CheckpointError as error:
            problems.append(str(error))
        else:
            return path, problems
    return None, problems


def require_same_model(path: Path, here: Shapes, there: Shapes) -> None:
    """Compare the tensors of a model with those of a checkpoint.

    Raises:
        CheckpointError: Names or shapes differ; the message has the first.
    """
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise CheckpointError(
                f"{path} is of another model: {name} is {_shape(there.get(name))} there,"
                f" {_shape(here.get(name))} here"
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape)) or "a scalar"
