"""Says why a job hung, from what a run has recorded or from torch's own dumps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distrun.api import dump_files, runs
from distrun.diagnose.call_paths import CallPath, path_of, shared
from distrun.diagnose.hang.evidence import Witness
from distrun.diagnose.hang.findings import HangVerdict, verdict_of
from distrun.diagnose.hang.timeline import Row, timeline
from distrun.diagnose.hang.trace import trace_of
from distrun.diagnose.hang.verdict import explain
from distrun.errors import UsageError
from distrun.report import run_witnesses

__all__ = ["CallPath", "Diagnosis", "HangVerdict", "Row", "diagnose"]
_POST_MORTEM_S: float | None = 0.0
"""The job made no progress when the records were written; for how long is not known."""


@dataclass(frozen=True)
class Diagnosis:
    """What the records of a job tell."""

    source: str
    """The run's name, or the directory of the dumps."""
    verdict: HangVerdict
    timeline: list[Row]
    """The last collectives of each rank, the oldest first."""
    groups: list[tuple[list[int], CallPath]]
    """Ranks that were in the same calls, the fewest ranks first."""
    hosts: dict[int, str]
    """The host of each rank whose stacks are known; "" if it is not known."""
    witnesses: Mapping[int, Witness]

    @property
    def is_wrong(self) -> bool:
        """Whether a hang or a mismatch is named."""
        return self.verdict.kind not in ("none", "late")

    def trace(self) -> dict[str, Any]:
        """Return the record for https://ui.perfetto.dev."""
        return trace_of(self.witnesses)


def diagnose(
    names: Sequence[str],
    *,
    runs_dir: Path = Path("runs"),
    last: int = 10,
    tell: Callable[[str], None] = lambda _: None,
) -> Diagnosis:
    """Say which rank the others waited for.

    If a run has recorded that itself, its own verdict is returned: it has seen the processes too.

    Args:
        names: One run (its name, any part of it, a path, or `latest`), one directory with dumps of
            torch's flight recorder, or such files. None means the latest run.
        runs_dir: Where runs are recorded.
        last: How many collectives of each rank the timeline has.
        tell: Called with a line about each file that is not used.

    Raises:
        UsageError: There is no such run or dump, or it left no record.
    """
    paths, idle_s = [Path(name) for name in names], _POST_MORTEM_S
    recorded = None
    is_dumps = len(paths) > 1 or (
        len(paths) == 1 and paths[0].exists() and not (paths[0] / "run.json").exists()
    )
    if is_dumps:
        source = str(paths[0] if paths[0].is_dir() else paths[0].parent)
        witnesses = dump_files.witnesses_of(paths, tell)
    else:
        run, record = runs.find(runs_dir, names[0] if names else "latest", tell)
        witnesses = run_witnesses.witnesses_of(run)
        if not any(w.record or w.stacks for w in witnesses.values()):
            hint = "they are written when a run is stopped while ranks live"
            hint += "" if record.is_over else ", and by: distrun stacks"
            raise UsageError(f"run {run.run_id} left no records of its ranks", hint)
        source = run.run_id
        if not record.is_over or not record.exit_code:
            idle_s = None
        recorded = verdict_of((runs.verdict(run) or {}).get("hang"))
    paths_of = {rank: path_of(w.stacks) for rank, w in witnesses.items() if w.stacks}
    return Diagnosis(
        source,
        recorded or explain(witnesses, idle_s=idle_s),
        timeline(witnesses, last),
        shared(paths_of),
        {rank: witnesses[rank].host for rank in paths_of},
        witnesses,
    )
