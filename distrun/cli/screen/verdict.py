"""How a run ended, in about fifteen lines at most."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distrun.api.runs import RunDirectory
from distrun.cli.screen.traceback_lines import traceback_lines
from distrun.frames import shortened

_FILE_CHARS = 240


def ending_lines(ended: Mapping[str, Any], run: RunDirectory, *, quiet: bool) -> Iterator[str]:
    """Yield the last lines of `launch`."""
    directory = shown(run.path)
    if ended["exit_code"] == 0:
        if not quiet:
            again = (
                f" after {ended['attempts'] - 1} restart{'s' * (ended['attempts'] > 2)}"
                if ended["attempts"] > 1
                else ""
            )
            yield f"done in {ended['duration_s']:.1f} s{again} · recorded in {directory}"
        return
    yield f"{ended['outcome'].upper()}: {ended['summary']}"
    if ended["verdict"]:
        for line in verdict_lines(ended["verdict"], run):
            yield f"  {line}"
    for hint in ended["hint"].splitlines():
        yield f"  hint: {hint}"
    if where := ended.get("where"):
        stacks = f"; full stacks are in {shown(run.path / 'stacks')}"
        yield f"  where the ranks were: {where}{stacks}"
    after = f"after {ended['duration_s']:.1f} s"
    if ended["attempts"] > 1:
        after += f" and {ended['attempts']} attempts"
    yield f"  exit code {ended['exit_code']} {after} · recorded in {directory}"


def verdict_lines(verdict: Mapping[str, Any], run: RunDirectory) -> Iterator[str]:
    """Yield the lines of a verdict, below its headline."""
    if note := verdict.get("hang", {}).get("note"):
        yield f"note: {note}"
    if "hang" in verdict and "rank" not in verdict:  # no rank has failed: they hung
        return
    if verdict["file"]:
        source = f": {verdict['source']}" if verdict["source"] else ""
        file = shortened(shown(Path(verdict["file"])), _FILE_CHARS)
        yield f"at {file}:{verdict['line']}{source}"
    if verdict.get("carrier"):
        yield str(verdict["carrier"])
    lines = list(traceback_lines(str(verdict["traceback"])))
    if any(line.startswith("  … ") for line in lines):
        yield f"the whole traceback is in errors/rank{verdict['rank']}.json"
    yield from lines
    if verdict["last_words"]:
        speaker = verdict.get("last_words_of", verdict["rank"])
        if speaker == verdict["rank"]:
            yield "the last it printed:"
        else:
            yield f"the last that rank {speaker} printed, which failed the same way:"
        yield from (f"  {line}" for line in verdict["last_words"].splitlines())
    if verdict.get("stacks"):
        stacks = shown(run.stacks(verdict["rank"]).path)
        where = "its log" if verdict["stacks"] == "log" else stacks
        yield f"the Python stacks of the crash are in {where}"
    if verdict["note"]:
        yield f"note: {verdict['note']}"
    if verdict["others"]:
        same = f", {verdict['same']} with the same error" if verdict["same"] else ""
        ranks = "1 other rank" if verdict["others"] == 1 else f"{verdict['others']} other ranks"
        ms = verdict["within_ms"]
        within = f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"
        yield f"{ranks} failed within {within} of it{same}"
    yield f"log of rank {verdict['rank']}: {shown(run.log(verdict['node'], verdict['rank']).path)}"


def shown(path: Path) -> str:
    """Return a path relative to the current directory, if that is shorter."""
    try:
        relative = os.path.relpath(path)
    except FileNotFoundError:  # the current directory was removed
        return str(path)
    return relative if len(relative) < len(str(path)) else str(path)
