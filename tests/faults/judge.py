"""Compares what came of a launch with the right answer, sentence by sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.faults.cases import Case
from tests.faults.run import Measured
from tests.faults.running import LAYOUTS, Layout
from tests.process.hang_runs import ranks_blamed_by_torchrun

_ENDING = re.compile(r"^distrun: (?:[A-Z][A-Z ]+|error): ", re.MULTILINE)
_SUMMARY = "Root Cause (first observed failure)"


def last_words(measured: Measured) -> str:
    """Return what distrun says of the end: from the line with its outcome on, and the record's."""
    endings = [*_ENDING.finditer(measured.screen)]
    said = measured.screen[endings[-1].start() :] if endings else ""
    return f"{said}\n{measured.summary}"


def pattern_of(case: Case, layout: Layout) -> str:
    """Return the regular expression of whom the last words have to name."""
    return layout.node_of_rank_3 if case.who == "node" else case.who


def wrong_with(case: Case, measured: Measured) -> list[str]:
    """Return which sentences about a launch by distrun do not hold, but for the time."""
    if measured.code is None:
        return [f"no end within {case.bound_s + 20:.0f} s"]
    wrong = []
    if measured.code != case.code:
        wrong.append(f"exit code {measured.code}, not {case.code}")
    if measured.left:
        wrong.append(f"left behind: {', '.join(measured.left)}")
    is_short = case.survives or case.bound == "start"
    said = measured.screen if is_short else last_words(measured)
    if not re.search(pattern_of(case, LAYOUTS[measured.layout]), said):
        wrong.append(f"does not name {pattern_of(case, LAYOUTS[measured.layout])}")
    if not re.search(case.says, said, re.DOTALL):
        wrong.append(f"does not say {case.says!r}")
    return wrong


def is_late(case: Case, measured: Measured) -> bool:
    """Whether it took longer than it may; on a machine at work, that says little."""
    return measured.seconds is None or measured.seconds > case.bound_s


# --- torchrun: the same sentences, in what it prints ---------------------------------------


def blamed_by_torchrun(measured: Measured) -> list[int]:
    """Return the ranks that its nodes call the root cause."""
    return ranks_blamed_by_torchrun(measured.screen)


def torchrun_names(case: Case, measured: Measured) -> str:
    """Return what torchrun says of the cause, in a few words."""
    if not case.who:
        return ""
    blamed = blamed_by_torchrun(measured)
    if not blamed:
        return "names nobody"
    right = {int(rank) for rank in re.findall(r"\d", case.who)} or set(range(4))
    if case.who == "node":
        right = {2, 3}
    ranks = [*map(str, dict.fromkeys(blamed))]
    named = f"names rank{'s' * (len(ranks) > 1)} {' and '.join(ranks)}"
    if not set(blamed) <= right:
        return f"{named}, wrong"
    summary = measured.screen[measured.screen.rindex(_SUMMARY) :]
    return named if _tells_why(case, summary) else f"{named}, not why"


def _tells_why(case: Case, summary: str) -> bool:
    code = case.code if case.code < 128 else 128 - case.code
    by_code = case.code not in (1, 124) and re.search(rf"exitcode\s*: {code}\b", summary)
    return bool(by_code or re.search(case.says, summary, re.DOTALL))


def wrong_with_torchrun(case: Case, measured: Measured) -> Iterator[str]:
    """Yield which of the sentences do not hold that can be asked of torchrun too."""
    if None in measured.codes:
        yield "does not end"
    elif (max(map(abs, filter(None, measured.codes)), default=0) == 0) != (case.code == 0):
        yield "its exit code"
    if measured.left:
        yield "processes left"
    names = torchrun_names(case, measured)
    if names.endswith(("nobody", "wrong", "not why")):
        yield names
