"""All runs of a runs directory, and the one that a word on the command line means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distrun.errors import UsageError, did_you_mean
from distrun.runs import record
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord


def list_runs(runs_dir: Path) -> Iterator[tuple[RunDirectory, RunRecord]]:
    """Yield every run, the newest first."""
    found = []
    for path in runs_dir.glob("*/run.json"):
        run = RunDirectory(path.parent.resolve())
        try:
            found.append((run, record.read(run)))
        except (OSError, ValueError):
            continue  # not a run of ours, or one that is being made
    yield from sorted(found, key=lambda pair: pair[1].started_at, reverse=True)


def find(runs_dir: Path, word: str) -> tuple[RunDirectory, RunRecord]:
    """Return the run that `word` names: a path, `latest`, or any part of its name.

    Raises:
        UsageError: No run is meant, or more than one.
    """
    path = Path(word)
    if (path / "run.json").is_file():
        run = RunDirectory(path.resolve())
        return run, record.read(run)
    runs = list(list_runs(runs_dir))
    if not runs:
        raise UsageError(f"no run is recorded in {str(runs_dir)!r}", "--runs-dir names another")
    if word == "latest":
        return runs[0]
    exact = [pair for pair in runs if pair[0].run_id == word]
    matches = exact or [pair for pair in runs if word and word in pair[0].run_id]
    if len(matches) == 1:
        return matches[0]
    names = [run.run_id for run, _ in matches or runs]
    if not matches:
        raise UsageError(f"no run is called {word!r}", did_you_mean(word, names[:10]))
    raise UsageError(f"{word!r} could be {len(matches)} runs", "one of: " + ", ".join(names[:10]))
