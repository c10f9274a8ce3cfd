"""Measures a small job on the nodes of a check: matmuls, copies, an all_reduce, all pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import distrun
from distrun.api.launch import LaunchResult
from distrun.api.prepare import Prepared, prepare
from distrun.probe.snapshot import Measured, MeasuredLink, MeasuredRank, Node
from distrun.spec.bench import BenchRequest
from distrun.spec.job import Header, Job, Settings

PROGRAM = str(Path(distrun.__file__).parent / "bench" / "deep.py")
"""By its path: with -m, modules in the current directory would come first."""
_MESSAGE_NBYTES = 1 << 20
_TIMEOUT_S = 60.0
_KINDS = ("ranks", "all_reduce", "pairs", "end")


def prepare_deep(settings: Settings) -> Prepared:
    """Plan the measuring job with these settings.

    Raises:
        UsageError: The settings are wrong.
        MachineError: A machine lacks something, or cannot be reached.
    """
    request = BenchRequest(
        ops=("pairs",), sizes=(_MESSAGE_NBYTES,), iterations=8, warmup=2, timeout_s=_TIMEOUT_S
    )
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    program = {"script": PROGRAM, "args": (request.model_dump_json(),)}
    job = Job(**{**given, **program, "check": False, "report": False})
    return prepare(job, dict.fromkeys(given, "flag"), Header())


@dataclass
class Told:
    """The results of rank 0 so far."""

    lines: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, line: bytes) -> None:
        """Read a line of rank 0's log; other lines are ignored."""
        try:
            record = json.loads(line)
            kind = record.pop("bench")
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        if kind in _KINDS:
            self.lines[kind] = record

    def measured(self, result: LaunchResult) -> Measured:
        """Return all results, and how the job ended."""
        ranks, reduced = self.lines.get("ranks", {}), self.lines.get("all_reduce", {})
        pairs = self.lines.get("pairs", {})
        whole = result.exit_code == 0 and "end" in self.lines
        return Measured(
            problem="" if whole else result.summary or f"it ended with {result.exit_code}",
            backend=ranks.get("backend", ""),
            ranks=tuple(MeasuredRank(**rank) for rank in ranks.get("ranks", ())),
            all_reduce_s=reduced.get("time_s"),
            all_reduce_right=reduced.get("right"),
            links=tuple(
                MeasuredLink(link["a"], link["b"], link["bandwidth"])
                for link in pairs.get("links", ())
            ),
            links_over=pairs.get("over", "rank"),
            slow=tuple(_sentence(suspect) for suspect in pairs.get("suspects", ())),
        )


def _sentence(suspect: dict[str, Any]) -> str:
    who = "-".join(map(str, suspect["who"]))
    return f"{suspect['kind']} {who} is slow: {suspect['factor']:.3g} times the usual time"


def with_measured(nodes: Sequence[Node], measured: Measured) -> list[Node]:
    """Return the nodes with the measurements of the whole job on the first."""
    return [replace(nodes[0], measured=measured), *nodes[1:]]
