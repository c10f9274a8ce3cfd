"""Lists the runs of a directory, and finds the run that an argument names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from distrun.errors import UsageError, did_you_mean
from distrun.runs import record
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord

Tell = Callable[[str], None]
Found = tuple[RunDirectory, RunRecord]


def list_runs(runs_dir: Path, tell: Tell = lambda _: None) -> list[Found]:
    """Return every run, the newest first.

    Args:
        runs_dir: Where runs are recorded.
        tell: Called with a line about each run that cannot be read.

    Raises:
        UsageError: The directory cannot be read.
    """
    found = []
    for name in _candidates(runs_dir, tell):
        run = RunDirectory(runs_dir.resolve() / name)
        try:
            found.append((run, record.read(run)))
        except FileNotFoundError:
            continue  # not a run, or one that is being created
        except (OSError, ValueError) as error:
            tell(_not_read(run, error))
    return sorted(found, key=lambda pair: pair[1].started_at, reverse=True)


def _candidates(runs_dir: Path, tell: Tell) -> list[str]:
    names = []
    try:
        for entry in os.scandir(runs_dir):
            if entry.is_dir(follow_symlinks=False):
                names.append(entry.name)
            elif entry.is_symlink() and entry.is_dir():
                tell(f"{entry.path} is not read: it is a symbolic link")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(
            f"--runs-dir {str(runs_dir)!r} cannot be read: {error.strerror}",
            "--runs-dir names another place",
        ) from None
    return sorted(names)


def _not_read(run: RunDirectory, error: OSError | ValueError) -> str:
    return f"{run.record} is not read: {getattr(error, 'strerror', None) or error}"


def find(runs_dir: Path, word: str, tell: Tell = lambda _: None) -> Found:
    """Return the run that `word` names: a path, `latest`, or any part of its name.

    Args:
        runs_dir: Where runs are recorded.
        word: The user's argument.
        tell: Called with a line about each run that cannot be read.

    Raises:
        UsageError: No run matches, or several do, or the run cannot be read.
    """
    path = Path(word)
    if os.path.lexists(path / "run.json"):
        run = RunDirectory(path.resolve())
        try:
            return run, record.read(run)
        except (OSError, ValueError) as error:
            raise UsageError(_not_read(run, error)) from None
    runs = list_runs(runs_dir, tell)
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
        raise UsageError(f"no run has the name {word!r}", did_you_mean(word, names[:10]))
    raise UsageError(f"{word!r} matches {len(matches)} runs", "one of: " + ", ".join(names[:10]))
