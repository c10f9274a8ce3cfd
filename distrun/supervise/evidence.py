"""Writes what an ended run leaves for a reader: its verdict, errors and stacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping

from distrun.runs.directory import RunDirectory
from distrun.runs.files import RunFile
from distrun.supervise.ending import Ending
from distrun.supervise.world import World


def write_evidence(
    run: RunDirectory, world: World, ending: Ending, complain: Callable[[str], None]
) -> None:
    """Write the verdict, the error of each rank and the stacks.

    Args:
        run: The run.
        world: Its last attempt.
        ending: How it ended.
        complain: Called with a message about each file that cannot be written.
    """
    files: list[tuple[RunFile, str]] = []
    if ending.verdict:
        files.append((run.verdict, json.dumps(ending.verdict.to_json(), indent=1)))
    for end in world.ends:
        if end.failed and end.report:
            files.append((run.error(end.rank), json.dumps(end.report, indent=1)))
        if end.stacks:
            files.append((run.stacks(end.rank), end.stacks))
    files += [(run.stacks(rank), text) for rank, text in world.where.stacks.items()]
    _write(files, complain)


def write_stacks(
    run: RunDirectory, stacks: Mapping[int, str], complain: Callable[[str], None]
) -> None:
    """Write the stacks of ranks that still run; `complain` as for `write_evidence`."""
    _write([(run.stacks(rank), text) for rank, text in stacks.items()], complain)


def _write(files: Iterable[tuple[RunFile, str]], complain: Callable[[str], None]) -> None:
    for file, text in files:
        try:
            file.replace_text(text + "\n")
        except OSError as error:
            complain(f"{file.parts[-1]} cannot be written: {error.strerror}")
