"""What a script raised, as one sentence with its line."""

from __future__ import annotations

import traceback
from pathlib import Path

from distrun.estimate.exchange import Fault
from distrun.estimate.tracer.fakes import RefusedError
from distrun.estimate.tracer.measure import NoStepsError
from distrun.train.config import ConfigError

NEEDS_NUMBERS = {"DynamicOutputShapeException", "DataDependentOutputException"}
"""What fake tensors raise where a shape depends on numbers."""


def fault_of(error: BaseException, script: Path) -> Fault:
    """Return what to tell of an exception that ended a trace."""
    file, line = _where(error, script.resolve().parent)
    kind = type(error).__name__
    first = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, ConfigError | RefusedError):
        return Fault(str(error))
    if isinstance(error, NoStepsError):
        return Fault(first, hint="train for two steps at least, with an optimizer of torch.optim")
    if isinstance(error, SystemExit):
        return Fault(f"the script exited with {error.code!r} before its second step", file, line)
    if kind in NEEDS_NUMBERS:
        return Fault(
            f"the result of {first} has a shape that depends on numbers, which a trace has not",
            file,
            line,
            "the formula needs no trace: leave out --trace",
        )
    return Fault(f"{kind}: {first}" if first else kind, file, line)


def _where(error: BaseException, folder: Path) -> tuple[str, int]:
    """Return the innermost line of the script or of a file beside it."""
    found = ("", 0)
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).resolve().parent == folder:
            found = (frame.filename, frame.lineno or 0)
    return found
