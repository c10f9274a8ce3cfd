"""Ranks of a group whose calls with one number differ: another function, shape, dtype or root."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distrun.diagnose.hang.case import Case, parts_of
from distrun.diagnose.hang.evidence import Collective
from distrun.diagnose.hang.waiting import OneGroup, Wait

_COMPARED = ("src", "dst", "op")
_OWN_INPUT = {"scatter", "all_to_all", "all_to_all_single", "alltoall", "alltoall_base"}
_OWN_INPUT |= {"all_to_all_v_single", "all_gather_v", "reduce_scatter_v"}
_OWN_OUTPUT = (_OWN_INPUT - {"scatter"}) | {"gather", "reduce"}
"""Collectives for which ranks may pass tensors of different sizes."""


@dataclass(frozen=True)
class Mismatch:
    """The calls with one number in a group, which differ."""

    wait: Wait
    parts: tuple[tuple[int, ...], ...]
    """Ranks that agree, the most first."""
    arguments: Mapping[int, str]
    """What ranks have passed, if only that differs: `src=0`."""
    is_swapped: bool = False
    """Whether two ranks have made two calls in opposite order."""

    @property
    def culprits(self) -> tuple[int, ...]:
        """The ranks that differ from a majority; () if there is none."""
        most = len(self.parts[0])
        is_majority = 2 * most > sum(map(len, self.parts))
        return tuple(sorted(r for part in self.parts[1:] for r in part)) if is_majority else ()


def mismatch_of(case: Case, wait: Wait) -> Mismatch | None:
    """Return how the calls of a collective that waits differ; None if they agree."""
    parts = tuple(parts_of(wait.calls, lambda rank: signature(wait.calls[rank])))
    if len(parts) > 1:
        group = next(g for g in case.groups if g.group is wait.group)
        swapped = _is_swapped(group, wait.seq, parts[0][0], parts[1][0])
        return Mismatch(wait, parts, {}, swapped)
    arguments = _arguments(case, wait)
    parts = tuple(parts_of(arguments, lambda rank: arguments[rank]))
    return Mismatch(wait, parts, arguments) if len(parts) > 1 else None


def last_common(case: Case) -> Mismatch | None:
    """Return the mismatch in the last call that all ranks of a group have made, if there is one."""
    for group in case.groups:
        numbers = [set(group.calls_of(rank)) for rank in group.records]
        common = set.intersection(*numbers) if numbers else set()
        if common and len(group.records) > 1:
            seq = max(common)
            calls = {rank: group.calls_of(rank)[seq] for rank in group.records}
            wait = Wait(group.group, group.members, seq, calls, waiting=tuple(calls))
            if found := mismatch_of(case, wait):
                return found
    return None


def signature(call: Collective) -> tuple[object, ...]:
    """Return what must be equal in the calls of all ranks."""
    inputs = () if call.op in _OWN_INPUT else (call.input_sizes, call.input_dtypes)
    outputs = () if call.op in _OWN_OUTPUT else (call.output_sizes, call.output_dtypes)
    return call.op, inputs, outputs


def _arguments(case: Case, wait: Wait) -> dict[int, str]:
    """Return the root and the operation that each waiting rank has passed, where it is known.

    They are those of the call that its main thread is in: its last one.
    """
    found = {}
    for rank in wait.waiting:
        record = case.witnesses[rank].record
        call = record.call if record else None
        last = record.groups[wait.group.name].enqueued if record else 0
        if call and call.group in ("", wait.group.name) and last == wait.seq:
            told = [
                f"{name}={call.arguments[name]}" for name in _COMPARED if name in call.arguments
            ]
            found[rank] = ", ".join(told)
    return found


def _is_swapped(group: OneGroup, seq: int, one: int, other: int) -> bool:
    own, theirs = group.calls_of(one), group.calls_of(other)
    if seq + 1 not in own or seq + 1 not in theirs:
        return False
    return signature(own[seq]) == signature(theirs[seq + 1]) and signature(
        own[seq + 1]
    ) == signature(theirs[seq])
