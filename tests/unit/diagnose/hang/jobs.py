"""Ranks of jobs that hang, written as the answers that ranks send."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from distrun.diagnose.hang.evidence import Process, Witness
from distrun.diagnose.hang.read import record_of

NOW_NS = 1_795_939_744_000_000_000
C10D = "/x/site-packages/torch/distributed/distributed_c10d.py"
LOADER = "/x/site-packages/torch/utils/data/dataloader.py"
THREADING = "/usr/lib/python3.11/threading.py"
QUEUE = "/usr/lib/python3.11/queue.py"
SUBPROCESS = "/usr/lib/python3.11/subprocess.py"
Where = tuple[str, int, str]

IN_COLLECTIVE: tuple[Where, ...] = (
    (C10D, 3245, "all_reduce"),
    (C10D, 83, "wrapper"),
    ("/me/train.py", 88, "step"),
)
IN_LOAD: tuple[Where, ...] = (("/me/data.py", 31, "load"), ("/me/train.py", 80, "main"))


def entry(
    seq: int,
    op: str = "all_reduce",
    *,
    sizes: Sequence[int] = (4, 4),
    dtype: str = "Float",
    group: tuple[str, str] = ("0", "default_pg"),
    done: bool = False,
    ago_s: float = 312.0,
    **other: Any,
) -> dict[str, Any]:
    """Return an entry as torch 2.13 writes it for gloo."""
    return {
        "collective_seq_id": seq,
        "op_id": seq,
        "p2p_seq_id": 0,
        "is_p2p": False,
        "input_sizes": [] if op == "barrier" else [list(sizes)],
        "output_sizes": [] if op == "barrier" else [list(sizes)],
        "input_dtypes": [] if op == "barrier" else [dtype],
        "output_dtypes": [] if op == "barrier" else [dtype],
        "process_group": list(group),
        "profiling_name": f"gloo:{op}",
        "retired": done,
        "state": "scheduled",
        "time_created_ns": NOW_NS - int(ago_s * 1e9),
        "timeout_ms": 1_800_000,
        **other,
    }


def done_up_to(seq: int, **other: Any) -> list[dict[str, Any]]:
    """Return the entries of collectives that have ended."""
    return [entry(n, done=True, **other) for n in range(max(1, seq - 2), seq + 1)]


def answer(
    entries: Sequence[Mapping[str, Any]] = (),
    *,
    groups: Mapping[str, tuple[str, Sequence[int]]] | None = None,
    frames: Sequence[Where] = (),
    call: Mapping[str, Any] | None = None,
    opcode: str = "CALL",
    world: int = 4,
) -> dict[str, Any]:
    """Return what a rank answers; without groups it has the default group of `world` ranks."""
    told = {"0": ("default_pg", range(world))} if groups is None else groups
    return {
        "time_ns": NOW_NS,
        "groups": [
            {"name": name, "desc": desc, "ranks": list(ranks)}
            for name, (desc, ranks) in told.items()
        ],
        "frames": [list(frame) for frame in frames],
        "opcode": opcode,
        "call": call,
        "trace": {"entries": list(entries), "pg_config": {}, "pg_status": {}, "version": "2.10"},
    }


def rank(
    number: int,
    entries: Sequence[Mapping[str, Any]] = (),
    *,
    at: Sequence[Where] = IN_COLLECTIVE,
    state: str = "S",
    has_record: bool = True,
    told: Mapping[str, Any] | None = None,
    **known: Any,
) -> Witness:
    """Return a rank on `node0` whose main thread is at `at`.

    Args:
        number: The rank.
        entries: Its record.
        at: The frames of its main thread, the innermost first.
        state: The state of its process; "" if its process is not known.
        has_record: Whether its torch has a recorder.
        told: Arguments for `answer`.
        known: Other fields of the witness.
    """
    sent = json.loads(json.dumps(answer(entries, frames=at, **(told or {}))))
    return Witness(
        number,
        known.pop("host", "node0"),
        record=record_of(sent) if has_record else None,
        stacks=stacks_of(at),
        process=Process(state) if state else None,
        **known,
    )


def stacks_of(frames: Sequence[Where]) -> str:
    """Return what faulthandler writes."""
    lines = [f'  File "{file}", line {line} in {name}\n' for file, line, name in frames]
    return "Current thread 0x00007f (most recent call first):\n" + "".join(lines)


def job(*ranks: Witness) -> dict[int, Witness]:
    """Return the ranks of a job by number."""
    return {each.rank: each for each in ranks}


PAST = done_up_to(6)
"""Six collectives that have ended."""


def waiting(*ranks: int, op: str = "all_reduce", **known: Any) -> list[Witness]:
    """Return ranks that wait in the seventh collective."""
    return [rank(each, [*PAST, entry(7, op)], **known) for each in ranks]
