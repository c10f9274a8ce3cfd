"""Makes records from what ranks have sent, and from torch's own dumps, which may hold anything.

Torch's dump is the dict that `_dump_fr_trace` and `_dump_fr_trace_json` return; its fields are
those of torch/distributed/flight_recorder/components/types.py. What has another type than there is
dropped; what is longer than any real record is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from distrun.diagnose.hang.evidence import (
    Call,
    Collective,
    Group,
    Handled,
    Process,
    RasEntry,
    Record,
)
from distrun.diagnose.places import Frame

_MAX_ENTRIES, _MAX_TENSORS, _MAX_DIMENSIONS = 4096, 256, 16
_MAX_GROUPS, _MAX_RANKS, _MAX_FRAMES, _MAX_ARGUMENTS = 4096, 1 << 17, 64, 16
_MAX_TEXT = 4096
_MAX_INT, _MAX_SECONDS = 2**63 - 1, 1e12
_PEER = re.compile(r"^(send|recv) (\d{1,9})(?:->|<-)(\d{1,9})$")
_NAMES = {
    "_all_gather_base": "all_gather_into_tensor",
    "_reduce_scatter_base": "reduce_scatter_tensor",
    "_broadcast_oop": "broadcast",
    "_reduce_oop": "reduce",
    "all_reduce_barrier": "barrier",
    "allreduce_coalesced": "all_reduce_coalesced",
    "ALLGATHER_coalesced": "all_gather_coalesced",
    "REDUCE_SCATTER_coalesced": "reduce_scatter_coalesced",
}
"""What backends call some functions, and what users call them."""


def record_of(answer: object) -> Record:
    """Return the record that a rank has sent, or that is in a dump of torch.

    Args:
        answer: What a rank answers: `groups`, `frames`, `call` and `trace`; or torch's dump itself.
    """
    told = _dict(answer)
    trace = _dict(told["trace"]) if "trace" in told else told
    configured = _groups_of_ranks(told, trace)
    collectives = tuple(_collectives(trace, configured))
    return Record(
        groups=_with_counts(configured, collectives, trace),
        collectives=collectives,
        frames=_frames(told.get("frames")) if trace is not told else (),
        opcode=_text(told.get("opcode")),
        moves=told.get("moves") is True,
        call=_call(told.get("call")),
        handled=_handled(told.get("handled")),
        ras=tuple(_ras(each) for each in _list(told.get("ras"), _MAX_GROUPS)),
        time_ns=_count(told.get("time_ns")),
    )


def counts_of(answer: object) -> Record:
    """Return the record without its collectives, as in a look: torch's own counts are other ones
    than those of the collectives, and only like ones can be compared.

    What torch counts as completed is the one that ended last, though another was called after it:
    gloo runs two at a time. So the entries tell whether one is left, if the last call has one.
    """
    told = _dict(answer)
    trace = _dict(told.get("trace"))
    bare = {name: value for name, value in trace.items() if name != "entries"}
    record = record_of({**told, "trace": bare})
    last: dict[str, int] = {}
    pending = set()
    for entry in _entries(trace):
        name = _text(entry["process_group"][0])
        last[name] = max(last.get(name, 0), _count(entry.get("op_id")))
        if not _is_done(entry):
            pending.add(name)
    groups = {
        name: _settled(group, is_pending=name in pending)
        if group.enqueued == last.get(name)
        else group
        for name, group in record.groups.items()
    }
    return replace(record, groups=groups)


def _settled(group: Group, *, is_pending: bool) -> Group:
    """Return a group with a count of completed calls that tells whether one is left."""
    if not is_pending:
        return replace(group, completed=group.enqueued)
    return replace(group, completed=min(group.completed, group.enqueued - 1))


class _Config(NamedTuple):
    """What does not change in a group."""

    desc: str = ""
    ranks: tuple[int, ...] = ()
    timeout_s: float = 0.0


def process_of(told: object) -> Process | None:
    """Return what an agent tells of a rank's process; None if it could not be read."""
    if not (found := _dict(told)):
        return None
    return Process(
        state=_text(found.get("state")),
        is_traced=found.get("is_traced") is True,
        cpu_s=_seconds(found.get("cpu_s")),
        system_s=_seconds(found.get("system_s")),
        io_nbytes=_count(found.get("io_nbytes")),
        faults=_count(found.get("faults")),
    )


def _groups_of_ranks(told: Mapping[Any, Any], trace: Mapping[Any, Any]) -> dict[str, _Config]:
    """Return the groups by name, as the rank tells them, else as NCCL's dump does."""
    found: dict[str, _Config] = {}
    for name, config in islice(_dict(trace.get("pg_config")).items(), _MAX_GROUPS):
        ranks = _dict(config).get("ranks")
        if _text(name) and type(ranks) is str and len(ranks) < 8 * _MAX_RANKS:
            numbers = map(int, re.findall(r"\d{1,9}", ranks))
            found[_text(name)] = _Config(_text(_dict(config).get("desc")), tuple(numbers))
    for group in _list(told.get("groups"), _MAX_GROUPS):
        if name := _text(_dict(group).get("name")):
            ranks = tuple(map(_count, _list(group.get("ranks"), _MAX_RANKS)))
            timeout_s = _seconds(group.get("timeout_s"))
            found[name] = _Config(_text(group.get("desc")), ranks, timeout_s)
    return found


def _with_counts(
    configured: Mapping[str, _Config],
    collectives: tuple[Collective, ...],
    trace: Mapping[Any, Any],
) -> dict[str, Group]:
    """Return the groups with the number of the last collective of each.

    Torch's own counts of a group go up with gloo's sends and receives too, which differ between
    ranks; so the entries count, where there are any.
    """
    names = _names_of_numbers(configured, trace)
    status = {
        names.get(_text(number), _text(number)): _dict(each)
        for number, each in _dict(trace.get("pg_status")).items()
    }
    entries: dict[str, list[Collective]] = {}
    for each in collectives:
        if not each.is_p2p:
            entries.setdefault(each.group, []).append(each)
    descs = {_text(e["process_group"][0]): _text(e["process_group"][1]) for e in _entries(trace)}
    groups = {}
    for name in [*configured, *(entries.keys() - configured), *(status.keys() - configured)]:
        if not name or name in groups:
            continue
        config = configured.get(name, _Config())
        own = entries.get(name, [])
        enqueued = max((each.seq for each in own), default=0)
        pending = [each.seq for each in own if not each.done]
        if own:
            completed = min(pending, default=enqueued + 1) - 1
        else:
            enqueued = _count(status.get(name, {}).get("last_enqueued_collective"))
            completed = _count(status.get(name, {}).get("last_completed_collective"))
        desc = config.desc or descs.get(name, "")
        groups[name] = Group(name, desc, config.ranks, enqueued, completed, config.timeout_s)
    return groups


def _names_of_numbers(configured: Iterable[str], trace: Mapping[Any, Any]) -> dict[str, str]:
    """Return number -> name: torch counts by the number that a group has in this rank alone.

    The entries tell it. A group without one has the number of its place among the rank's groups.
    """
    found = {
        str(_count(entry["pg_id"])): _text(entry["process_group"][0])
        for entry in _entries(trace)
        if "pg_id" in entry
    }
    for number, name in enumerate(configured):
        if name not in found.values():
            found.setdefault(str(number), name)
    return found


def _collectives(trace: Mapping[Any, Any], groups: Mapping[str, _Config]) -> Iterator[Collective]:
    for entry in _entries(trace):
        group = _text(entry["process_group"][0])
        is_p2p = entry.get("is_p2p") is True
        backend, _, op = _text(entry.get("profiling_name")).rpartition(":")
        peer = _peer(op, groups.get(group, _Config()).ranks)
        op = op.split(" ")[0]
        state = _text(entry.get("state"))
        yield Collective(
            group=group,
            seq=_count(entry.get("p2p_seq_id" if is_p2p else "collective_seq_id")),
            op=_NAMES.get(op, op),
            backend=backend,
            input_sizes=_sizes(entry.get("input_sizes")),
            output_sizes=_sizes(entry.get("output_sizes")),
            input_dtypes=_texts(entry.get("input_dtypes")),
            output_dtypes=_texts(entry.get("output_dtypes")),
            state=state,
            done=_is_done(entry),
            is_p2p=is_p2p,
            created_ns=_count(entry.get("time_created_ns")),
            completed_ns=_count(entry.get("time_discovered_completed_ns")),
            timeout_ms=_count(entry.get("timeout_ms")),
            frames=_frames(entry.get("frames")),
            peer=peer,
        )


def _entries(trace: Mapping[Any, Any]) -> Iterator[Mapping[Any, Any]]:
    """Yield the entries that name their group."""
    entries = trace.get("entries")
    for entry in entries[-_MAX_ENTRIES:] if isinstance(entries, (list, tuple)) else ():
        group = _dict(entry).get("process_group")
        if isinstance(group, (list, tuple)) and len(group) == 2:
            yield entry


def _is_done(entry: Mapping[Any, Any]) -> bool:
    return entry.get("retired") is True or entry.get("state") == "completed"


def _peer(op: str, ranks: tuple[int, ...]) -> int:
    """Return the global rank at the other end of NCCL's `send 0->1` or `recv 1<-0`, else -1."""
    found = _PEER.match(op)
    if not found:
        return -1
    number = int(found[3])
    return ranks[number] if number < len(ranks) else number


def _call(told: object) -> Call | None:
    function = _text(_dict(told).get("function"))
    if not function:
        return None
    arguments: dict[str, int | str] = {}
    for name, value in islice(_dict(_dict(told).get("arguments")).items(), _MAX_ARGUMENTS):
        if type(name) is str and type(value) is str:
            arguments[_text(name)] = _text(value)
        elif type(name) is str and type(value) is int and abs(value) <= _MAX_INT:
            arguments[_text(name)] = value
    return Call(function, _text(_dict(told).get("group")), arguments)


def _handled(told: object) -> Handled | None:
    match told:
        case [str(kind), str(message), str(file), int(line)]:
            return Handled(_text(kind), _text(message), _text(file), _count(line))
    return None


def _ras(told: object) -> RasEntry:
    entry = _dict(told)
    counts = islice(_dict(entry.get("counts")).items(), _MAX_ARGUMENTS)
    return RasEntry(
        _text(entry.get("communicator")),
        _count(entry.get("size")),
        {_text(function): _count(count) for function, count in counts},
        is_missing=entry.get("is_missing") is True,
        has_failed=entry.get("has_failed") is True,
    )


def _frames(told: object) -> tuple[Frame, ...]:
    """Return frames from `[file, line, function]`, or from torch's dicts."""
    found = []
    for frame in _list(told, _MAX_FRAMES):
        if type(frame) is dict:
            frame = (frame.get("filename"), frame.get("line"), frame.get("name"))
        if isinstance(frame, (list, tuple)) and len(frame) == 3 and type(frame[0]) is str:
            found.append(Frame(_text(frame[0]), _count(frame[1]), _text(frame[2])))
    return tuple(found)


def _sizes(told: object) -> tuple[tuple[int, ...], ...]:
    tensors = _list(told, _MAX_TENSORS)
    return tuple(tuple(map(_count, _list(tensor, _MAX_DIMENSIONS))) for tensor in tensors)


def _texts(told: object) -> tuple[str, ...]:
    return tuple(map(_text, _list(told, _MAX_TENSORS)))


def _dict(value: object) -> dict[Any, Any]:
    return value if type(value) is dict else {}


def _list(value: object, limit: int) -> list[Any]:
    return list(value[:limit]) if isinstance(value, (list, tuple)) else []


def _text(value: object) -> str:
    return value[:_MAX_TEXT] if type(value) is str else ""


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    return float(value) if 0 <= value < _MAX_SECONDS else 0.0


def _count(value: object) -> int:
    """Return a number from 0 on; torch's JSON has some of them as text."""
    if type(value) is str and value.isascii() and value.isdecimal() and len(value) < 20:
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MAX_INT else 0
