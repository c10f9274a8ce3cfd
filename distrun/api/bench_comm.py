"""Measures collectives on the ranks of a job, and compares two reports."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import distrun
from distrun.api.prepare import Prepared, Tell, prepare
from distrun.bandwidth import DEFINITIONS
from distrun.errors import DistrunError, UsageError
from distrun.spec.bench import SCHEMA, BenchReport, BenchRequest, Row
from distrun.spec.job import Header, Job

PROGRAM = str(Path(distrun.__file__).parent / "bench" / "program.py")
"""By path: with -m, modules in the current directory would be found first."""
_KINDS = ("row", "fit", "skipped", "pairs", "stragglers")


def program_of(request: BenchRequest) -> dict[str, Any]:
    """Return the fields of a `Job` for the program and its request.

    The machine is not checked: the user may be looking for its faults.
    """
    args = (request.model_dump_json(),)
    return {"script": PROGRAM, "args": args, "check": False, "report": False}


def prepare_bench(
    job: Job,
    sources: Mapping[str, str],
    request: BenchRequest,
    *,
    ask: bool = True,
    tell: Tell = lambda _: None,
) -> Prepared:
    """Plan the job that measures.

    Args:
        job: The job, with the fields of `program_of`.
        sources: The sources of its fields.
        request: What to measure.
        ask: See `prepare`.
        tell: See `prepare`.

    Raises:
        UsageError: The job is wrong, or has too few ranks for the request.
        MachineError: The machine lacks something.
    """
    prepared = prepare(job, sources, Header(), ask=ask, tell=tell)
    world_size = prepared.plan.world_size
    if world_size < 2:
        raise UsageError(
            "bench-comm has one rank, so there is nothing to measure",
            "--nproc-per-node 2",
        )
    if not 0 <= request.root < world_size:
        raise UsageError(
            f"--root {request.root} is not one of the ranks 0 to {world_size - 1}", "--root 0"
        )
    return prepared


@dataclass
class Collected:
    """The results of rank 0 so far."""

    request: BenchRequest
    started_at: float = field(default_factory=time.time)
    begin: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {name: [] for name in _KINDS}
    )
    ended: bool = False

    def take(self, line: bytes) -> None:
        """Read a line of rank 0's log; other lines are ignored."""
        try:
            record = json.loads(line)
            kind = record.pop("bench")
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        if kind == "begin":
            self.begin = record
        elif kind == "end":
            self.ended = True
        elif kind in self.lines:
            self.lines[kind].append(record)

    @property
    def rows_done(self) -> int:
        """Number of finished rows."""
        return len(self.lines["row"]) + len(self.lines["skipped"])

    def report(self) -> BenchReport:
        """Return the results so far as a report.

        Raises:
            DistrunError: The ranks had not started.
        """
        if not self.begin:
            raise DistrunError("the ranks ended before the first measurement")
        begin = {name: value for name, value in self.begin.items() if name != "rows"}
        ops = {row["op"] for row in self.lines["row"]}
        return BenchReport.model_validate(
            {
                "schema": SCHEMA,
                "started_at": round(self.started_at, 3),
                "complete": self.ended,
                **begin,
                "definitions": {
                    op: {"size": each.size, "busbw_factor": each.formula}
                    for op, each in DEFINITIONS.items()
                    if op in ops
                },
                "request": self.request,
                "rows": self.lines["row"],
                "models": self.lines["fit"],
                "skipped": self.lines["skipped"],
                "pairs": next(iter(self.lines["pairs"]), None),
                "stragglers": next(iter(self.lines["stragglers"]), None),
            }
        )


@dataclass(frozen=True)
class Change:
    """A row compared with the same row of another report."""

    before: Row
    after: Row
    tolerance: float
    """Relative: the requested tolerance, or three times the scatter if that is more."""

    @property
    def ratio(self) -> float:
        """New median time / old median time."""
        return self.after.p50_s / self.before.p50_s

    @property
    def judged(self) -> bool:
        """Return whether both have little enough noise to compare."""
        return not (self.before.noisy or self.after.noisy)

    @property
    def moved(self) -> bool:
        """Return whether it differs by more than the tolerance in either direction."""
        return self.judged and not 1 / (1 + self.tolerance) <= self.ratio <= 1 + self.tolerance

    @property
    def regressed(self) -> bool:
        """Return whether it became slower."""
        return self.moved and self.ratio > 1


def compare(before: BenchReport, after: BenchReport, tolerance: float) -> list[Change]:
    """Return the change of each row that both reports have.

    Raises:
        UsageError: Their worlds differ, or they have no common row.
    """
    for name, one, other in (
        ("world_size", before.world_size, after.world_size),
        ("nnodes", before.nnodes, after.nnodes),
        ("backend", before.backend, after.backend),
        ("--mode", before.request.mode, after.request.mode),
    ):
        _require_equal(name, one, other)
    changes = list(_changes(before, after, tolerance))
    if not changes:
        raise UsageError(
            "the reports have no row in common", "the same --op, --dtype, -b, -e and -f"
        )
    return changes


def require_comparable(before: BenchReport, prepared: Prepared, request: BenchRequest) -> None:
    """Refuse a baseline that cannot be compared with the coming measurement.

    Raises:
        UsageError: Its world differs.
    """
    _require_equal("world_size", before.world_size, prepared.plan.world_size)
    _require_equal("nnodes", before.nnodes, prepared.plan.nnodes)
    _require_equal("--mode", before.request.mode, request.mode)
    _require_equal("backend", before.backend, request.backend or before.backend)


def _require_equal(name: str, before: object, after: object) -> None:
    if before != after:
        raise UsageError(
            f"the reports cannot be compared: {name} {before} and {after}",
            "measure the baseline with the same ranks, nodes and options",
        )


def _changes(before: BenchReport, after: BenchReport, tolerance: float) -> Iterator[Change]:
    then = {row.key: row for row in before.rows}
    for row in after.rows:
        if row.key in then:
            old = then[row.key]
            scatter = 3 * max(old.mad_s / old.p50_s, row.mad_s / row.p50_s)
            yield Change(old, row, max(tolerance, scatter))
