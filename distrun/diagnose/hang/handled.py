"""Ranks that hang in the `finally` or `except` block of an exception: it is the cause."""

from __future__ import annotations

from dataclasses import replace

from distrun.diagnose.hang import words
from distrun.diagnose.hang.case import Case
from distrun.diagnose.hang.findings import NO_MAJORITY, HangVerdict
from distrun.diagnose.places import Place
from distrun.frames import shortened

_MESSAGE_CHARS = 160


def with_handled(case: Case, found: HangVerdict) -> HangVerdict:
    """Return a verdict with the exception of the ranks that others wait for, if they have one.

    If the ranks disagree without a majority, those that have raised are named. What all ranks
    have raised tells nothing.
    """
    ranks = [r for r, w in case.witnesses.items() if w.record and w.record.handled]
    own = sorted(set(ranks) & set(found.culprits))
    if not found.is_hang or not own or len(ranks) == len(case.witnesses):
        return found
    record = case.witnesses[own[0]].record
    assert record and record.handled  # it is one of those
    error = record.handled
    message = f": {shortened(error.message.strip(), _MESSAGE_CHARS)}" if error.message else ""
    told = f"{error.type}{message} at {Place(error.file, error.line)}"
    raises = words.plural("has raised", len(own))
    block = f"{words.plural('is', len(own))} in its finally or except block"
    raised = f"{case.named(own)} {raises} {told}, and {block}"
    return replace(
        found,
        sentence=f"{found.sentence.removesuffix(NO_MAJORITY)}; {raised}",
        culprits=found.culprits if found.is_certain else tuple(own),
        is_certain=True,
        file=error.file,
        line=error.line,
    )
