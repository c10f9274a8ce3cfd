"""A run directory as a test wants it: its record, its events, its metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distrun.runs.directory import RunDirectory

T0 = 1_767_225_600.0
"""2026-01-01 00:00:00 UTC."""
Record = dict[str, Any]


def made_run(
    runs_dir: Path,
    *,
    run_id: str = "20260101-000000-train-0001",
    metrics: Iterable[Record] = (),
    events: Iterable[Record] = (),
    verdict: Record | None = None,
    **fields: Any,
) -> RunDirectory:
    """Write a run directory; by default of a run of one node that succeeded after 10 s."""
    path = runs_dir / run_id
    path.mkdir(parents=True)
    record = {
        "run_id": run_id,
        "recipe": "train.py",
        "nnodes": 1,
        "nproc_per_node": 2,
        "started_at": T0,
        "ended_at": T0 + 10.0,
        "exit_code": 0,
        "outcome": "succeeded",
        "summary": "every rank ended with 0",
        "command": ["distrun", "launch", "train.py"],
        "plan": {"local": True, "nodes": [{"number": 0, "host": "node0", "address": "127.0.0.1"}]},
    }
    (path / "run.json").write_text(json.dumps(record | fields))
    (path / "metrics.jsonl").write_text(lines(metrics))
    (path / "events.jsonl").write_text(lines(events or [attempt(0.0)]))
    if verdict is not None:
        (path / "verdict.json").write_text(json.dumps(verdict))
    return RunDirectory(path)


def lines(records: Iterable[Record]) -> str:
    """Return a line of JSON for each record."""
    return "".join(json.dumps(record) + "\n" for record in records)


def attempt(after_s: float) -> Record:
    """Return the event of an attempt that begins."""
    return {"event": "attempt_started", "time": T0 + after_s, "attempt": 0, "nnodes": 1}


def step(number: int, after_s: float, rank: int = 0, **values: object) -> Record:
    """Return the record of a step."""
    own = {"rank": rank, "time": T0 + after_s, "step": number, "total_steps": 100}
    return {**values, **own}


def sample(node: int, after_s: float, **values: float) -> Record:
    """Return the record of a sample of a machine."""
    return {"node": node, "time": T0 + after_s, "system": values}
