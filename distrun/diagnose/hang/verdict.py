"""Finds which rank the others wait for, and why. Pure, but for source lines of the user's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from distrun.diagnose.hang import calls_only, disagreements, missing, nobody_waits
from distrun.diagnose.hang.case import Case
from distrun.diagnose.hang.evidence import Witness
from distrun.diagnose.hang.findings import HangVerdict
from distrun.diagnose.hang.handled import with_handled
from distrun.diagnose.hang.ras import with_ras
from distrun.diagnose.hang.words import printable

_RULES: tuple[Callable[[Case], HangVerdict | None], ...] = (
    calls_only.until_torch_gave_up,
    calls_only.making_groups,
    disagreements.at_a_wait,
    missing.awaited,
    missing.called_by_all,
    disagreements.at_the_end,
    calls_only.in_one_function,
    nobody_waits.exceptional,
    nobody_waits.still_there,
    nobody_waits.all_input,
    nobody_waits.rest,
)
"""What is looked for, in this order: the first finding is the verdict."""


def explain(witnesses: Mapping[int, Witness], *, idle_s: float | None) -> HangVerdict:
    """Return who waits for whom.

    Args:
        witnesses: What is known of each rank, by rank.
        idle_s: For how long the job has made no progress; 0.0 if that is not known, as of a job
            that is over; None if nobody has watched it.
    """
    case = Case.of(witnesses, idle_s)
    found = next(verdict for rule in _RULES if (verdict := rule(case)))
    found = with_ras(case, with_handled(case, found))
    return replace(found, sentence=printable(found.sentence), note=printable(found.note))
