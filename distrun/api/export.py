"""Exports the model of a run's last valid checkpoint to one safetensors file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import distrun
from distrun.checks.required import require_torch
from distrun.errors import DistrunError, MachineError, UsageError
from distrun.probe.torch_facts import read_torch
from distrun.runs.listing import find

_PROGRAM = "distrun.dcp.export"


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    checkpoint: str = ""
    step: int = 0
    tensors: int = 0
    parameters: int = 0
    passed_over: tuple[str, ...] = ()
    """The problems of newer checkpoints."""
    broken: str = ""
    """Why no checkpoint can be used; "" if the file was written."""


def checkpoints_of(runs_dir: Path, word: str) -> Path:
    """Return the directory that `word` names: a checkpoint, or one that contains checkpoints.

    Args:
        runs_dir: Where runs are recorded.
        word: A run as in `distrun logs`, a checkpoint, or a directory of checkpoints.

    Raises:
        UsageError: It names none, or a run without checkpoints.
    """
    path = Path(word)
    if not path.is_dir() or (path / "run.json").is_file():
        path = find(runs_dir, word)[0].path / "checkpoints"
    if (path / "manifest.json").exists() or path.name.startswith("step-"):
        return path
    if not any(path.glob("step-*")):
        raise UsageError(
            f"there is no checkpoint in {path}",
            "a run saves at its end, and with --checkpoint-every; another directory can be given",
        )
    return path


def export(checkpoints: Path, out: Path) -> Exported:
    """Write the model, in a child process because it needs torch.

    Args:
        checkpoints: What `checkpoints_of` returned.
        out: The file; written completely or not at all.

    Raises:
        UsageError: Its name does not end in .safetensors.
        MachineError: torch is missing, or the file cannot be written.
    """
    if out.suffix != ".safetensors" or out.is_dir():
        raise UsageError(
            f"{str(out)!r} is not the name of a safetensors file", "for example model.safetensors"
        )
    require_torch(read_torch().version)
    words = [str(checkpoints.resolve()), str(out.resolve())]
    child = subprocess.run(
        [sys.executable, "-m", _PROGRAM, *words],
        cwd=Path(distrun.__file__).parent.parent,  # -m searches there first, and finds this distrun
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    try:
        answer = json.loads(child.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
        raise DistrunError(
            f"the export of {checkpoints} ended without a result: {said[-1]}"
        ) from None
    if "machine" in answer:
        raise MachineError(answer["machine"])
    return Exported(**{**answer, "passed_over": tuple(answer.get("passed_over", ()))})
