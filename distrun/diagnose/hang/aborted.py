"""Who differs, if gloo has aborted ranks that received more bytes than their tensors have.

gloo ends such a process in C++ (gloo/transport/tcp/pair.cc), and its record of collectives with it.
Two things are known of it all the same: it did not come with the largest tensor, and if all others
agree, it is the one that differs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from distrun.diagnose.hang import words
from distrun.diagnose.hang.case import Case, parts_of
from distrun.diagnose.hang.evidence import Collective, Witness
from distrun.diagnose.hang.findings import NO_MAJORITY, HangVerdict
from distrun.diagnose.hang.mismatch import signature
from distrun.diagnose.hang.waiting import OneGroup, Wait
from distrun.diagnose.places import Place, place_of

_TOO_MANY_BYTES = re.compile(r"gloo::EnforceNotMet.*op\.preamble\.length <= op\.nbytes", re.DOTALL)
_EARLIER = 8
"""How many calls before the last one are compared: a rank may be ahead, as the source of a
broadcast."""
_LEFT_EARLY = {"broadcast", "reduce", "gather", "scatter"}
"""Collectives that some ranks leave while others are in them."""
_ITEM_NBYTES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "bfloat16": 2, "float16": 2}
_ITEM_NBYTES |= {"int16": 2, "int8": 1, "uint8": 1, "bool": 1, "complex64": 8, "complex128": 16}


def is_abort(last_words: str) -> bool:
    """Return whether a rank's last output is that of gloo's abort."""
    return _TOO_MANY_BYTES.search(last_words) is not None


@dataclass(frozen=True)
class _Call:
    """The calls with one number of those ranks that left a record."""

    wait: Wait
    parts: tuple[tuple[int, ...], ...]
    """Ranks that agree, the most first."""

    @property
    def at_ns(self) -> int:
        return max(call.created_ns for call in self.wait.calls.values())


def explain_abort(witnesses: Mapping[int, Witness], aborted: Collection[int]) -> HangVerdict | None:
    """Return which ranks differ from the others; None if nothing tells.

    Args:
        witnesses: What is known of each rank, by rank.
        aborted: Those that gloo has aborted.
    """
    case = Case.of(witnesses, None)
    groups = [group for group in case.groups if set(aborted) <= set(group.members)]
    calls = [call for group in groups if (call := _call_of(group))]
    if not calls:
        return None
    found = max(calls, key=lambda call: (len(call.parts), call.at_ns))
    return _verdict(case, found, tuple(sorted(aborted)))


def _call_of(group: OneGroup) -> _Call | None:
    """Return the last call that differs, of those that all who left a record have made; if none
    does, the last one."""
    own = {rank: calls for rank in group.records if (calls := group.calls_of(rank))}
    common = sorted(set.intersection(*map(set, own.values()))) if own else []
    found: _Call | None = None
    for seq in reversed(common[-_EARLIER:]):
        calls = {rank: own[rank][seq] for rank in own}
        signatures = {rank: signature(call) for rank, call in calls.items()}
        parts = tuple(parts_of(calls, signatures.__getitem__))
        wait = Wait(group.group, group.members, seq, calls, waiting=tuple(calls))
        if len(parts) > 1:
            return _Call(wait, parts)
        found = found or _Call(wait, parts)
    return found


def _verdict(case: Case, found: _Call, aborted: tuple[int, ...]) -> HangVerdict:
    wait = found.wait
    parts = _with_aborted(found, aborted)
    unknown = [rank for rank in aborted if not any(rank in part for part in parts)]
    told = [_part(case, found, part) for part in parts]
    if unknown:
        told.append(f"{words.named(unknown)} left no record")
    is_majority = 2 * len(parts[0]) > len(wait.members)
    culprits = tuple(sorted(rank for part in parts[1:] for rank in part)) if is_majority else ()
    doubt = "" if culprits else NO_MAJORITY
    which = f"call #{wait.seq} of {words.group_name(wait.group)}"
    if len(found.parts) == 1 and wait.op in _LEFT_EARLY:
        which = f"{which}, or the one before it"
    everyone = tuple(sorted({*aborted, *wait.calls}))
    place = _place(case, found, (culprits or everyone)[0])
    return HangVerdict(
        "mismatch",
        f"ranks disagree in {which}: {'; '.join(told)}{doubt}",
        culprits or everyone,
        is_certain=bool(culprits),
        file=place.file if place else "",
        line=place.line if place else 0,
        group=wait.group.desc or wait.group.name,
        op=wait.calls[found.parts[0][0]].op,
        seq=wait.seq,
    )


def _with_aborted(found: _Call, aborted: tuple[int, ...]) -> Sequence[tuple[int, ...]]:
    """Return the parts with the aborted ranks in their own, or in that of the smaller tensor."""
    parts = [*found.parts]
    if len(parts) == 1:
        parts.append(aborted)
    elif len(parts) == 2:
        sizes = [_nbytes(found.wait.calls[part[0]]) for part in parts]
        ops = {found.wait.calls[part[0]].op for part in parts}
        if len(ops) == 1 and None not in sizes and sizes[0] != sizes[1]:
            smaller = sizes.index(min(size for size in sizes if size is not None))
            parts[smaller] = (*parts[smaller], *aborted)
    return sorted(parts, key=lambda part: -len(part))


def _nbytes(call: Collective) -> int | None:
    """Return how many bytes a rank passes; None if that is not known."""
    sizes = call.input_sizes or call.output_sizes
    dtypes = [words.dtype(name) for name in call.input_dtypes or call.output_dtypes]
    if not sizes or len(sizes) != len(dtypes) or not set(dtypes) <= _ITEM_NBYTES.keys():
        return None
    return sum(prod(size) * _ITEM_NBYTES[name] for size, name in zip(sizes, dtypes, strict=True))


def _part(case: Case, found: _Call, ranks: tuple[int, ...]) -> str:
    """Return `ranks 0,2 called all_reduce (float32 [4]) at train.py:8 (all_reduce)`."""
    where = words.located(_place(case, found, ranks[0]))
    call = found.wait.calls.get(ranks[0])
    if call is None:  # all of them were aborted
        return f"{case.named(ranks)} came with fewer bytes{where}"
    tensor = words.tensor(call)
    shown = f" ({tensor})" if tensor else ""
    return f"{case.named(sorted(ranks))} called {call.op}{shown}{where}"


def _place(case: Case, found: _Call, rank: int) -> Place | None:
    """Return the line that has made the call; the stacks of a crash tell it too."""
    witness = case.witnesses[rank]
    if witness.exit_code is not None:
        return place_of(witness.stacks)
    return case.place_of_call(found.wait, rank)
