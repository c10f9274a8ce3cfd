"""Launches a case of the table, and compares what came of it with the right answer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import only_run
from tests.others.launches import ENVIRON, Layout
from tests.process.hang_cases import Case

LIMIT_S = 90.0
"""Some fifty seconds more than any launch takes."""
HANG, ABORTED = 124, 134
_BLAMED = re.compile(r"Root Cause \(first observed failure\):.*?\brank\s*: (\d+)", re.DOTALL)


@dataclass(frozen=True)
class Ended:
    """How one launch ended."""

    exit_code: int | None
    """None: it did not end within the limit."""
    seconds: float
    screen: str
    verdict: dict[str, Any] = field(default_factory=dict)
    """On the hang, of verdict.json."""
    waited_s: float | None = None
    """From the call of the collective that waits to the exit of the launch; None without one."""

    @property
    def named(self) -> str:
        """Whom the launch blames, in a few words."""
        if self.exit_code == 0:
            return "ended well"
        ranks = ",".join(map(str, self.verdict.get("culprits", ()))) or "nobody"
        place = f"{Path(self.verdict.get('file') or '-').name}:{self.verdict.get('line', 0)}"
        return f"rank {ranks} at {place}, {self.verdict.get('op') or 'no call'}"


def launched(
    case: Case, layout: Layout, directory: Path, *, hang_timeout_s: float, limit_s: float = LIMIT_S
) -> Ended:
    """Launch a case with distrun, to its end, or to `limit_s`."""
    command = [
        *(sys.executable, "-m", "distrun", "launch", "--no-check"),
        *(f"--nodes={layout.nodes}", f"--nproc-per-node={layout.nproc_per_node}"),
        *(f"--hang-timeout={hang_timeout_s}", *case.script),
    ]
    began = time.monotonic()
    with (directory / "screen").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=os.environ | ENVIRON,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
            process.terminate()
            process.wait(LIMIT_S)
    seconds, ended_at = time.monotonic() - began, time.time()
    screen = (directory / "screen").read_text(errors="replace")
    run = only_run(directory)
    path = run / "verdict.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    verdict = record.get("hang") or {}
    return Ended(code, seconds, screen, verdict, waited_s(run, verdict, ended_at))


def waited_s(run: Path, verdict: dict[str, Any], ended_at: float) -> float | None:
    """Return for how long ranks had waited in a collective when the launch was over."""
    events = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    judged_at = next((event["time"] for event in events if event["event"] == "hang"), None)
    if judged_at is None or verdict.get("waited_s") is None:
        return None
    return float(verdict["waited_s"]) + ended_at - float(judged_at)


def wrong_with(case: Case, ended: Ended) -> list[str]:
    """Return what a launch should have come to, or said, and did not; [] if it is right."""
    if case.ends == "well":
        return [] if ended.exit_code == 0 else [f"exit code {ended.exit_code} of a job that lives"]
    if ended.exit_code is None:
        return [f"no end within {LIMIT_S:.0f} s"]
    wrong = []
    if case.or_aborts and ended.exit_code == ABORTED:
        is_told = re.search(case.or_aborts, ended.screen)
        return [] if is_told else [f"does not say {case.or_aborts}"]
    if (ended.exit_code == HANG) != (case.ends == "hang") or not ended.exit_code:
        wrong.append(f"exit code {ended.exit_code}")
    if not re.search(case.says, ended.screen):
        wrong.append(f"does not say {case.says}")
    return wrong + (wrong_answers(case, ended.verdict) if case.ends == "hang" else [])


def wrong_answers(case: Case, verdict: dict[str, Any]) -> list[str]:
    """Return what the verdict on a hang has wrong."""
    wrong = []
    if case.kind and verdict.get("kind") not in case.kind.split():
        wrong.append(f"is {verdict.get('kind')}, not {case.kind}")
    found = tuple(verdict.get("culprits", ()))
    if found != case.culprits:
        wrong.append(f"blames {found}, not {case.culprits}")
    line = (Path(verdict.get("file") or "").name, verdict.get("line"))
    if case.at and line not in case.here:
        wrong.append(f"is at {line}, not in {sorted(case.here)}")
    op, group = verdict.get("op"), verdict.get("group")
    if case.op and (op != case.op or group not in (case.group.split() or [""])):
        wrong.append(f"waits in {op} of {group}, not in {case.op} of {case.group}")
    told = f"{verdict.get('sentence')}; {verdict.get('note')}"
    if case.waits_at and not any(f"{file}:{n}" in told for file, n in case.waiting):
        wrong.append(f"does not say that others wait at {sorted(case.waiting)}")
    return wrong


def ranks_blamed_by_torchrun(screen: str) -> list[int]:
    """Return the ranks that each node calls the root cause, in the order of the screen."""
    return [int(rank) for rank in _BLAMED.findall(screen)]
