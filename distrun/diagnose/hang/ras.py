"""What NCCL's RAS counts, beside a verdict: it may agree, or not. It never makes a verdict.

It counts calls, not their ends, and has called a job sound that then timed out
(https://github.com/NVIDIA/nccl/issues/1730).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from distrun.diagnose.hang import words
from distrun.diagnose.hang.case import Case, parts_of
from distrun.diagnose.hang.evidence import Group, RasEntry
from distrun.diagnose.hang.findings import HangVerdict

_FUNCTIONS = {
    "all_reduce": "AllReduce",
    "all_reduce_coalesced": "AllReduce",
    "barrier": "AllReduce",
    "broadcast": "Broadcast",
    "reduce": "Reduce",
    "all_gather": "AllGather",
    "all_gather_into_tensor": "AllGather",
    "reduce_scatter": "ReduceScatter",
    "reduce_scatter_tensor": "ReduceScatter",
}
"""What torch calls for a collective, where it is one function of NCCL."""
_CALLED_BY_ALL = {"unclear", "mismatch"}
"""Kinds of verdict on a call that all ranks have made, as far as RAS can tell."""


def with_ras(case: Case, found: HangVerdict) -> HangVerdict:
    """Return a verdict whose note has what RAS tells of the ranks, if it has answered."""
    if not found.is_hang and found.kind != "unclear":
        return found
    parts = [*_unsound(case), *_calls(case, found)]
    return replace(found, note="; ".join(filter(None, [found.note, *parts])))


def _unsound(case: Case) -> Iterator[str]:
    """Yield which ranks RAS does not reach, and in which NCCL has failed."""
    entries = {r: w.record.ras for r, w in case.witnesses.items() if w.record}
    if missing := [r for r, own in entries.items() if any(entry.is_missing for entry in own)]:
        yield f"NCCL's RAS does not reach {words.named(missing)}"
    if failed := [r for r, own in entries.items() if any(entry.has_failed for entry in own)]:
        yield f"NCCL's RAS: an operation has failed in {words.named(failed)}"


def _calls(case: Case, found: HangVerdict) -> Iterator[str]:
    """Yield who has called the verdict's collective how often, and whether it is what that says."""
    function = _FUNCTIONS.get(found.op)
    counts = _counts(case, found, function) if function else {}
    if len(counts) < 2:
        return
    most = max(counts.values())
    behind = {rank for rank, count in counts.items() if count < most}
    culprits = set(found.culprits) & counts.keys()
    is_other = not behind and culprits and found.kind not in _CALLED_BY_ALL
    agrees = "agrees" if behind and behind == culprits else "differs" if is_other else "counts"
    parts = [*parts_of(sorted(counts), counts.__getitem__)][::-1]
    shown = ", ".join(f"{_times(counts[part[0]])} in {words.named(part)}" for part in parts)
    yield f"NCCL's RAS {agrees}: {function} {shown}"


def _counts(case: Case, found: HangVerdict, function: str) -> Mapping[int, int]:
    """Return how often each rank has called a function in the communicator of the verdict's group.

    {} if the collective is not NCCL's, or if it is not known which communicator is the group's.
    """
    group = _group_of(case, found)
    if group is None:
        return {}
    told: dict[str, dict[int, RasEntry]] = {}
    for rank, witness in case.witnesses.items():
        for entry in witness.record.ras if witness.record else ():
            if entry.size == len(group.ranks) and not entry.is_missing:
                told.setdefault(entry.communicator, {})[rank] = entry
    own = [entries for entries in told.values() if entries.keys() <= set(group.ranks)]
    if len(own) != 1:
        return {}
    return {rank: entry.counts.get(function, 0) for rank, entry in own[0].items()}


def _group_of(case: Case, found: HangVerdict) -> Group | None:
    """Return the verdict's group, if a rank that waits in it has called NCCL there."""
    for rank in found.waiting:
        witness = case.witnesses.get(rank)
        record = witness.record if witness else None
        for group in record.groups.values() if record else ():
            if (group.desc or group.name) == found.group and group.ranks:
                calls = [c for c in record.collectives if c.group == group.name] if record else []
                return group if calls and calls[-1].backend == "nccl" else None
    return None


def _times(count: int) -> str:
    return {0: "not once", 1: "once"}.get(count, f"{count} times")
