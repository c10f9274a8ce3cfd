"""Exports the model of a run's last valid checkpoint: its tensors, or a program."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import distrun
from distrun.checks.required import require_torch
from distrun.errors import DistrunError, MachineError, UsageError
from distrun.extras import missing
from distrun.probe.torch_facts import read_torch
from distrun.runs.listing import find

FORMATS = {"safetensors": ".safetensors", "onnx": ".onnx", "torch-export": ".pt2"}
"""Format -> the ending of its files."""
_FOR_ONNX = ("onnx", "onnxscript", "onnxruntime")


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
    """Why nothing could be written; "" if the file was."""
    input: tuple[int | str, ...] = ()
    """The shape of a program's input; a name: any size."""
    largest_difference: float | None = None
    """Between the results of a program and of the model, on the same input."""
    largest_result: float | None = None


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


def script_of(checkpoints: Path, given: Path | None) -> Path:
    """Return the script that saved checkpoints: the given one, or that of the run's record.

    Raises:
        UsageError: It is not there.
    """
    script = given
    if script is None:
        run = (
            checkpoints.parent.parent
            if checkpoints.name.startswith("step-")
            else checkpoints.parent
        )
        if not (run / "run.json").is_file():
            raise UsageError(
                f"{checkpoints} is not in the directory of a run: its script is not known",
                "--script names it",
            )
        script = Path(find(run.parent, str(run))[1].recipe)
    if not script.is_file():
        raise UsageError(f"script {str(script)!r} does not exist", "--script names another place")
    return script


def export(checkpoints: Path, out: Path, script: Path | None = None) -> Exported:
    """Write the model, in a child process because it needs torch.

    Args:
        checkpoints: What `checkpoints_of` returned.
        out: The file; written completely or not at all. Its ending is one of `FORMATS`.
        script: For a program, the recipe that saved them, which is imported; None: the record's.

    Raises:
        UsageError: Its name has another ending, or the script is not there.
        MachineError: A package is missing, or the file cannot be written.
    """
    if out.suffix not in FORMATS.values() or out.is_dir():
        raise UsageError(
            f"{str(out)!r} is not the name of a safetensors, onnx or pt2 file",
            "for example model.safetensors",
        )
    require_torch(read_torch().version)
    words = ["distrun.dcp.export", str(checkpoints.resolve()), str(out.resolve())]
    if out.suffix != ".safetensors":
        source = script_of(checkpoints.resolve(), script).resolve()
        words[0] = "distrun.train.export"
        words.insert(2, str(source))
    if out.suffix == ".onnx":
        _require_onnx()
    return _answer(checkpoints, words)


def _require_onnx() -> None:
    for package in _FOR_ONNX:
        if command := missing(package, "onnx"):
            raise MachineError(f"ONNX needs {package}, which is not installed", command)


def _answer(checkpoints: Path, words: list[str]) -> Exported:
    child = subprocess.run(
        [sys.executable, "-m", *words],
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
    lists = {name: tuple(answer.get(name, ())) for name in ("passed_over", "input")}
    return Exported(**{**answer, **lists})
