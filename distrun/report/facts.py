"""Everything that a run directory tells, read once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distrun.diagnose.hang.evidence import Witness
from distrun.report.lines import Numbers, read_numbers
from distrun.report.run_witnesses import witnesses_of
from distrun.report.story import Story, read_story
from distrun.runs import record
from distrun.runs.directory import RunDirectory
from distrun.runs.files import RunFile
from distrun.runs.record import RunRecord

_LIMIT_NBYTES = 16 << 20
_MAX_BENCHES = 100


@dataclass(frozen=True)
class Facts:
    """A run as it is recorded."""

    run: RunDirectory
    record: RunRecord
    story: Story
    numbers: Numbers
    witnesses: Mapping[int, Witness]
    verdict: Mapping[str, Any]
    """What failed first; {} if nothing did."""
    bench: Mapping[str, Any]
    """The report of bench-comm, if the run is one or a run on the same nodes has one."""

    @property
    def end(self) -> float:
        """When the run ended; of one that goes on, the last thing that is known of it."""
        last = max(self.story.last_at, self.numbers.last_at, self.record.started_at)
        return max(self.record.ended_at or last, self.record.started_at)

    @property
    def hosts(self) -> dict[int, str]:
        """The host of each node, by number."""
        nodes = self.record.plan.get("nodes")
        told = [n for n in nodes if isinstance(n, dict)] if isinstance(nodes, list) else []
        found = {n["number"]: str(n.get("host")) for n in told if type(n.get("number")) is int}
        for attempt in self.story.attempts:
            found |= {number: span.label for number, span in attempt.nodes.items() if span.label}
        return found

    @property
    def hang(self) -> Mapping[str, Any]:
        """Who waited for whom when the run was stopped; {} if that was not examined."""
        hang = self.verdict.get("hang")
        return hang if isinstance(hang, dict) else {}


def read_facts(run: RunDirectory) -> Facts:
    """Read a run directory.

    Raises:
        OSError: It has no record, or it cannot be read.
        ValueError: Its record is not one.
    """
    found = record.read(run)
    story = read_story(run)
    numbers = read_numbers(run, [attempt.begin for attempt in story.attempts])
    return Facts(
        run,
        found,
        story,
        numbers,
        witnesses_of(run),
        _json(run.verdict),
        _json(_bench_file(run)) or _bench_before(run, found),
    )


def _bench_file(run: RunDirectory) -> RunFile:
    return RunFile(run.path, ("bench.json",), run.held)


def _bench_before(run: RunDirectory, found: RunRecord) -> Mapping[str, Any]:
    """Return the last report of bench-comm that was made on the same nodes before a run ended."""
    end = found.ended_at or math.inf
    known = [RunDirectory(path.parent) for path in run.path.parent.glob("*/bench.json")]
    benches = []
    for other in sorted(known, key=lambda each: each.run_id)[-_MAX_BENCHES:]:
        try:
            told = record.read(other)
        except (OSError, ValueError):
            continue
        if told.started_at < end and _machines(told) == _machines(found):
            benches.append((told.started_at, other))
    return _json(_bench_file(max(benches, key=lambda each: each[0])[1])) if benches else {}


def _machines(found: RunRecord) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return what tells whether two runs had the same nodes."""
    nodes = found.plan.get("nodes")
    told = [node for node in nodes if isinstance(node, dict)] if isinstance(nodes, list) else []
    return found.host, tuple((str(n.get("host")), str(n.get("address"))) for n in told)


def _json(file: RunFile) -> Mapping[str, Any]:
    try:
        data = json.loads(file.read(_LIMIT_NBYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
