"""What the calls of the main threads tell where torch has recorded nothing.

Nothing is recorded while a group is made, in gloo's sends, and on a torch without a recorder.
"""

from __future__ import annotations

from distrun.diagnose.hang import words
from distrun.diagnose.hang.blocked import blocked_ranks
from distrun.diagnose.hang.case import Case, parts_of
from distrun.diagnose.hang.findings import HangVerdict, Kind

_INIT = ("init_process_group",)
_NEW_GROUP = (
    *("new_group", "split_group", "new_subgroups", "new_subgroups_by_enumeration"),
    "init_device_mesh",
)


def until_torch_gave_up(case: Case) -> HangVerdict | None:
    """Find the ranks for which others have waited until torch's own timeout."""
    inside = tuple(sorted(rank for rank, each in case.witnesses.items() if each.gave_up))
    others = tuple(rank for rank in case.standings if rank not in inside)
    if not inside or not others:
        return None
    return HangVerdict(
        case.standing(others[0]).kind,
        f"{case.prefix}{words.named(inside)} waited for {words.named(others)} until torch's own"
        f" timeout{_calls(case, inside)}; {case.whereabouts(others)}",
        others,
        waiting=inside,
        **case.line_of(others),
    )


def making_groups(case: Case) -> HangVerdict | None:
    """Find ranks that do not take part in init_process_group or new_group as others do."""
    for functions, kind in ((_INIT, "init"), (_NEW_GROUP, "no_group")):
        inside = _inside(case, functions)
        if not inside:
            continue
        others = tuple(rank for rank in case.standings if rank not in inside)
        function = case.standing(inside[0]).function
        if others and len(_opposed(case, inside)) > len(inside):
            return None  # they wait in a collective for the ranks that make a group alone
        if others:
            return _apart(case, function, inside, others, "init" if kind == "init" else "no_group")
        if kind == "init":
            lasting = words.lasting(case.idle_of(inside))
            return HangVerdict(
                "init",
                f"{case.prefix}{case.named(inside)} {words.plural('is', len(inside))} in"
                f" {function}{_calls(case, inside)}{lasting}: no rank is missing here, so is the"
                " world size larger, or can the ranks not reach one another?",
                waiting=inside,
            )
    return None


def _opposed(case: Case, inside: tuple[int, ...]) -> list[int]:
    """Return the ranks that wait in a collective for ranks that make a group."""
    blocked = blocked_ranks(case)
    return [r for r, each in blocked.items() if r not in inside and {*inside} & {*each.on}]


def in_one_function(case: Case) -> HangVerdict | None:
    """Find ranks that are in no function of torch.distributed while others are in one."""
    blocked = blocked_ranks(case)
    inside = tuple(
        rank
        for rank, found in case.standings.items()
        if found.kind == "distributed" and rank not in blocked
    )
    if not inside or (case.idle_s is None and _are_recorded(case)):
        return None  # a look at a healthy job finds ranks in calls too
    outside = tuple(rank for rank in case.standings if rank not in inside)
    parts = list(parts_of(inside, lambda rank: case.standing(rank).function))
    if outside:
        function = case.standing(parts[0][0]).function
        return _apart(case, function, inside, outside, case.standing(outside[0]).kind)
    return _disagree(case, parts) if len(parts) > 1 else None


def _are_recorded(case: Case) -> bool:
    return any(witness.record for witness in case.witnesses.values())


def _inside(case: Case, functions: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(
        rank
        for rank, found in case.standings.items()
        if found.kind == "distributed" and found.function in functions
    )


def _apart(
    case: Case, function: str, inside: tuple[int, ...], outside: tuple[int, ...], kind: Kind
) -> HangVerdict:
    whole = len(inside) + len(outside)
    return HangVerdict(
        kind,
        f"{case.prefix}{function} waits for {words.named(outside)}: {len(inside)} of {whole} ranks"
        f" called it{_calls(case, inside)}; {case.whereabouts(outside)}",
        outside,
        op=function,
        waiting=inside,
        **case.line_of(outside),
    )


def _disagree(case: Case, parts: list[tuple[int, ...]]) -> HangVerdict:
    is_majority = len(parts[0]) > sum(map(len, parts[1:]))
    everyone = tuple(sorted(rank for part in parts for rank in part))
    culprits = tuple(sorted(r for part in parts[1:] for r in part)) if is_majority else everyone
    told = "; ".join(case.whereabouts(part) for part in parts[:3])
    doubt = "" if is_majority else "; no majority: cannot tell which is wrong"
    return HangVerdict(
        "mismatch",
        f"{case.prefix}ranks are in different collectives: {told}{doubt}",
        culprits,
        is_certain=is_majority,
        op=case.standing(parts[0][0]).function,
        waiting=everyone,
        **case.line_of(culprits),
    )


def _calls(case: Case, ranks: tuple[int, ...]) -> str:
    part = next(parts_of(ranks, lambda rank: case.standing(rank).calls))
    return words.located(case.standing(part[0]).calls)
