"""Writes what an ended run leaves for a reader: its verdict, errors and stacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping

from distrun.runs.directory import RunDirectory
from distrun.runs.files import RunFile
from distrun.supervise.ending import Ending
from distrun.supervise.whereabouts import Answer
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
    if ending.verdict or ending.hang:
        files.append((run.verdict, json.dumps(ending.verdict_json(), indent=1)))
    for end in world.ends:
        if end.failed and end.report:
            files.append((run.error(end.rank), json.dumps(end.report, indent=1)))
        if end.stacks:
            files.append((run.stacks(end.rank), end.stacks))
    for rank, told in world.hangs.last_calls.items():
        files.append((run.flight(rank), json.dumps(told)))
    _write(files, complain)
    write_answers(run, world.where.at_stop, complain)


def write_answers(
    run: RunDirectory, answers: Mapping[int, Answer], complain: Callable[[str], None]
) -> None:
    """Write the stacks and the records of ranks that still run; `complain` as above."""
    files: list[tuple[RunFile, str]] = []
    for rank, answer in answers.items():
        if answer.stacks:
            files.append((run.stacks(rank), answer.stacks))
        if answer.flight:
            files.append((run.flight(rank), json.dumps(answer.flight)))
    _write(files, complain)


def _write(files: Iterable[tuple[RunFile, str]], complain: Callable[[str], None]) -> None:
    for file, text in files:
        try:
            file.replace_text(text + "\n")
        except OSError as error:
            complain(f"{file.parts[-1]} cannot be written: {error.strerror}")
