"""What NCCL's RAS counts, beside a verdict: it may agree, or not. It never makes a verdict.

It counts calls, not their ends, and has called a job sound that then timed out
(https://github.com/NVIDIA/nccl/issues/1730).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from distrun.diagnose.hang import words
from distrun.diagnose.hang.case import Case, parts_of
from distrun.diagnose.hang.evidence import RasEntry
from distrun.diagnose.hang.findings import HangVerdict

_Told = Mapping[int, RasEntry]
"""By rank: what is told of one communicator."""
_CALLED_BY_ALL = {"unclear", "mismatch"}
"""Kinds of verdict on a call that all ranks have made, as far as RAS can tell."""
_SHOWN = 2
"""So many functions of one communicator are told."""


def with_ras(case: Case, found: HangVerdict) -> HangVerdict:
    """Return a verdict whose note has what RAS tells of the ranks, if it has answered."""
    if not found.is_hang and found.kind != "unclear":
        return found
    told = _communicator(case, {*found.waiting, *found.culprits})
    parts = [*_unsound(case), *_calls(told, found)]
    if not parts:
        return found
    return replace(found, note="; ".join(filter(None, [found.note, *parts])))


def _communicator(case: Case, ranks: set[int]) -> _Told:
    """Return what is told of the communicator that the verdict is about: of those with the most of
    its ranks one whose ranks differ, then the smallest."""
    by_name: dict[str, dict[int, RasEntry]] = {}
    for rank, witness in case.witnesses.items():
        for entry in witness.record.ras if witness.record else ():
            by_name.setdefault(entry.communicator, {})[rank] = entry

    def order(told: _Told) -> tuple[int, bool, int]:
        return len(ranks & told.keys()), bool([*_differing(told)]), -len(told)

    return max(by_name.values(), key=order, default={})


def _unsound(case: Case) -> Iterator[str]:
    """Yield which ranks RAS does not reach, and in which NCCL has failed."""
    entries = {r: w.record.ras for r, w in case.witnesses.items() if w.record}
    if missing := [r for r, own in entries.items() if any(entry.is_missing for entry in own)]:
        yield f"NCCL's RAS does not reach {words.named(missing)}"
    if failed := [r for r, own in entries.items() if any(entry.has_failed for entry in own)]:
        yield f"NCCL's RAS: an operation has failed in {words.named(failed)}"


def _calls(told: _Told, found: HangVerdict) -> Iterator[str]:
    """Yield who has called how often, and whether that is what the verdict says."""
    reached = {rank: entry for rank, entry in told.items() if not entry.is_missing}
    if len(reached) < 2:
        return
    differing = [*_differing(reached)]
    if not differing:
        is_other = found.kind not in _CALLED_BY_ALL and reached.keys() & set(found.culprits)
        counts = "differs: it counts" if is_other else "counts"
        yield f"NCCL's RAS {counts} the same calls in {words.named(sorted(reached))}"
        return
    behind = {rank for function in differing for rank in _behind(reached, function)}
    agrees = "agrees" if behind == set(found.culprits) & reached.keys() else "counts"
    shown = ", ".join(_counted(reached, function) for function in differing[:_SHOWN])
    yield f"NCCL's RAS {agrees}: {shown}"


def _differing(told: _Told) -> Iterator[str]:
    """Yield the functions that ranks have not called equally often."""
    reached = [entry for entry in told.values() if not entry.is_missing]
    for function in sorted({name for entry in reached for name in entry.counts}):
        if len({entry.counts.get(function, 0) for entry in reached}) > 1:
            yield function


def _behind(told: _Told, function: str) -> Iterator[int]:
    most = max(entry.counts.get(function, 0) for entry in told.values())
    return (rank for rank, entry in told.items() if entry.counts.get(function, 0) < most)


def _counted(told: _Told, function: str) -> str:
    """Return `AllReduce 1286 times in rank 5, 1287 times in ranks 0-4,6-7`."""
    counts = {rank: entry.counts.get(function, 0) for rank, entry in told.items()}
    parts = [*parts_of(sorted(counts), counts.__getitem__)][::-1]
    shown = [f"{_times(counts[part[0]])} in {words.named(part)}" for part in parts]
    return f"{words.shortened(function)} " + ", ".join(shown)


def _times(count: int) -> str:
    return {0: "not once", 1: "once"}.get(count, f"{count} times")
