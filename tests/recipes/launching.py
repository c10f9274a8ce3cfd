"""Recipes as real processes: plain python, torchrun, and `distrun launch`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from distrun.env import scrubbed

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
TIMEOUT_S = 200


class Finished(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    err: str

    @property
    def losses(self) -> list[float]:
        """Those that were printed."""
        return [float(loss) for loss in re.findall(r"^step .* +loss (\S+)", self.out, re.M)]

    @property
    def accuracy(self) -> float:
        """That of the digits."""
        ((correct, total),) = re.findall(r"^test accuracy .*\((\d+) of (\d+)\)$", self.out, re.M)
        return int(correct) / int(total)


def environment() -> dict[str, str]:
    """Return that of this process, without a launcher's, on the loopback."""
    env = {"OMP_NUM_THREADS": "1", **scrubbed(os.environ)}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
    if sys.platform == "linux":
        env["GLOO_SOCKET_IFNAME"] = "lo"
    return env


@contextmanager
def giving_way() -> Iterator[None]:
    """Compute on half of the processors: other tests watch the clock, those of recipes do not.

    (Being nice would not do: with autogroups Linux weighs sessions, and each rank has its own.)
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    mine, worker = os.sched_getaffinity(0), os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    every_second = sorted(mine)[int(worker[2:]) % 2 :: 2]  # two workers do not take the same
    os.sched_setaffinity(0, every_second or mine)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def started(cwd: Path, *args: object) -> subprocess.Popen[str]:
    """Start this interpreter."""
    with giving_way():
        return subprocess.Popen(
            [sys.executable, *map(str, args)],
            cwd=cwd,
            env=environment(),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def ended(process: subprocess.Popen[str], timeout_s: float = TIMEOUT_S) -> Finished:
    """Wait for a process that `started` returned; one that hangs is taken down with its ranks."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # torchrun takes its ranks along; SIGKILL would not
        try:
            process.communicate(timeout=10)
        finally:
            process.kill()
        raise
    return Finished(process.returncode, out, err)


def run_python(cwd: Path, *args: object) -> Finished:
    """Run this interpreter to its end."""
    return ended(started(cwd, *args))


def torchrun(cwd: Path, nproc: int, script: Path, *args: object) -> Finished:
    """Run a script under bare torchrun."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", nproc)
    return run_python(cwd, *launcher, script, *args)
