"""What a recorded run has left of each rank: its record, its stacks, its end."""

from __future__ import annotations

import json
import os
from typing import Any

from distrun.diagnose.hang.dump_file import MAX_NBYTES
from distrun.diagnose.hang.evidence import Process, Record, Witness
from distrun.diagnose.hang.read import record_of
from distrun.report.story import events_of
from distrun.runs.directory import RunDirectory
from distrun.runs.files import RunFile

_STACKS_NBYTES = 1 << 20


def witnesses_of(run: RunDirectory) -> dict[int, Witness]:
    """Return what is known of the ranks of the last attempt, at the time of the stop.

    A rank that ended after the stop had begun counts as alive: the others were asked before.
    """
    hosts: dict[int, str] = {}
    nodes: dict[int, int] = {}
    codes: dict[int, int] = {}
    states: dict[int, str] = {}
    is_stopping, since = False, 0.0
    for event in events_of(run):
        name, rank, node = event["event"], event.get("rank"), event.get("node")
        if name == "attempt_started":
            nodes, codes, states, is_stopping = {}, {}, {}, False
            since = _time(event.get("time"))
        elif name in ("node_stage", "node_joined") and type(node) is int:
            hosts[node] = str(event.get("host", ""))
        elif name == "rank_started" and type(rank) is int and type(node) is int:
            nodes[rank] = node
        elif name == "rank_ended" and type(rank) is int and not is_stopping:
            codes[rank] = _code(event.get("exit_code"))
        elif name == "stopping":
            is_stopping = True
        elif name == "stacks":
            states.update(_states(event.get("ranks")))
    return {
        rank: Witness(
            rank,
            hosts.get(node, f"node{node}"),
            record=read_record(run, rank, since),
            stacks=_stacks(run, rank, since),
            process=Process(states[rank]) if states.get(rank) else None,
            exit_code=codes.get(rank),
        )
        for rank, node in sorted(nodes.items())
    }


def _time(told: Any) -> float:
    return float(told) if isinstance(told, (int, float)) else 0.0


def _code(told: Any) -> int:
    return told if type(told) is int else 1


def _states(told: Any) -> dict[int, str]:
    ranks = [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []
    return {each["rank"]: str(each.get("state")) for each in ranks if type(each.get("rank")) is int}


def read_record(run: RunDirectory, rank: int, since: float = 0.0) -> Record | None:
    """Return the record of a rank's collectives, from when it was last asked; None without one.

    Args:
        run: The run.
        rank: The rank.
        since: What was written before that time is of an earlier attempt.
    """
    try:
        return record_of(json.loads(_read(run.flight(rank), MAX_NBYTES, since)))
    except (OSError, ValueError, RecursionError):  # missing, or cut by a full disk
        return None


def _stacks(run: RunDirectory, rank: int, since: float) -> str:
    try:
        return _read(run.stacks(rank), _STACKS_NBYTES, since).decode(errors="replace")
    except OSError:
        return ""


def _read(file: RunFile, limit_nbytes: int, since: float) -> bytes:
    with open(file.open(os.O_RDONLY), "rb") as opened:
        if os.fstat(opened.fileno()).st_mtime < since:
            raise FileNotFoundError(f"{file} is of an earlier attempt")
    return file.read(limit_nbytes)
