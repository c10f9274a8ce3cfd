"""Runs a case once, and measures what came of it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.hosts import Hosts
from tests.faults.cases import Case
from tests.faults.running import WORKER, Layout, Running, wait_for
from tests.faults.settings import NotHere

START_LIMIT_S = 120.0
"""For four ranks to reach the middle of training, on a machine that does much else."""
PATIENCE_S = 20.0
"""How much longer than its bound a launch is waited for."""
GONE_WITHIN_S = 10.0
"""How long after the end something of the run may be left."""


@dataclass(frozen=True)
class Measured:
    """What came of one launch."""

    case: str
    layout: str
    by: str
    codes: tuple[int | None, ...]
    """Exit codes, 128+n for signal n, of the launcher of each node; None: it did not end."""
    seconds: float | None
    """From the fault to the end of the last launcher; None: it did not end, or had no fault."""
    left: tuple[str, ...]
    """What was left 10 s after the end."""
    gone_s: float
    """From the end until nothing was left; of use if that is all of `left`."""
    load: float
    """Load average over the last minute, at the end."""
    screen: str
    summary: str
    """What run.json says of the end."""

    @property
    def code(self) -> int | None:
        """The exit code of a launch by distrun."""
        return self.codes[0]


def measure(case: Case, layout: Layout, by: str, cwd: Path, hosts: Hosts | None) -> Measured:
    """Run a case.

    Args:
        case: The fault.
        layout: Where the ranks are.
        by: `distrun` or `torchrun`.
        cwd: An empty directory, which the hosts see too.
        hosts: Two hosts or more, for a layout of hosts.

    Raises:
        NotHere: This machine or this launcher cannot have the fault.
    """
    running = Running(layout, by, cwd, [str(WORKER), *case.program], hosts)
    with case.setting(running):
        began_at = time.time()
        running.start()
        try:
            bring_about(case, running)
            fault_at = running.fault_at or began_at
            limit_s = min(case.bound_s, 60) + PATIENCE_S
            is_over = wait_for(lambda: running.is_over, fault_at + limit_s - time.time())
            ended_at = time.time()
            wait_for(lambda: is_over and not running.left(), GONE_WITHIN_S if is_over else 0)
            gone_s = time.time() - ended_at
            left = tuple(running.left().values()) if is_over else ()
            codes = tuple(child.poll() for child in running.children)
        finally:
            running.kill()
    return Measured(
        case=case.id,
        layout=layout.id,
        by=by,
        codes=tuple(code if code is None or code >= 0 else 128 - code for code in codes),
        seconds=ended_at - fault_at if is_over else None,
        left=left,
        gone_s=gone_s,
        load=os.getloadavg()[0],
        screen=running.screen,
        summary=str(running.record("run.json").get("summary", "")),
    )


def bring_about(case: Case, running: Running) -> None:
    """Wait for the fault, or for the middle of training and act."""
    if case.act or case.survives:
        wait_for(lambda: running.is_ready() or running.is_over, START_LIMIT_S)
    if case.act and not running.is_over:
        running.fault_is_now()
        try:
            case.act(running)
        except LookupError as error:
            raise NotHere(f"{running.by} has no {error}") from None
    if case.survives:
        running.let_it_end()
    if case.bound != "start":
        wait_for(lambda: running.fault_at or running.is_over, START_LIMIT_S)


@contextmanager
def directory() -> Iterator[Path]:
    """Make a directory for launches, and remove it."""
    home = Path(tempfile.mkdtemp(prefix="distrun-faults-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
