"""`launch --estimate`: what is expected, as a note of the plan, or a refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from distrun.api.expected import expected, prediction_of
from distrun.cli.estimate.view import headline
from distrun.errors import MachineError

if TYPE_CHECKING:
    from distrun.api.prepare import Prepared


def with_estimate(prepared: Prepared, *, force: bool) -> Prepared:
    """Return the job with a note, which is printed at the start and kept in run.json.

    Raises:
        MachineError: It cannot fit, and is not forced.
    """
    found = expected(prepared)
    line = headline(found)
    if found.found.memory.verdict == "does not fit" and not force:
        fitting = [each.name for each in found.remedies if each.memory.verdict == "fits"]
        cure = f"{fitting[0]} would fit; " if fitting else ""
        raise MachineError(line, f"{cure}--force starts it anyway")
    plan = replace(prepared.plan, notes=(*prepared.plan.notes, f"expected: {line}"))
    return replace(prepared, plan=plan, prediction=prediction_of(found))
