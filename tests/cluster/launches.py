"""Launches on real hosts: started from this machine, watched, and looked for after their end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.hosts import Hosts
from tests.conftest import wait_until

LIMIT_S = 100.0
GONE_WITHIN_S = 15.0
"""How long after the end of a run something of it may be left on a host."""

SCRIPT = """
import os, subprocess, sys, time
import torch, torch.distributed as dist

dist.init_process_group("gloo")
dist.all_reduce(torch.ones(1))
print("begun", os.environ["RANK"], flush=True)
what = sys.argv[1]
if what == "raise" and dist.get_rank() == 1:
    raise ValueError("no such sample: 7")
if what == "wait":
    subprocess.Popen(["sleep", "777"], start_new_session=True)
    time.sleep(600)
if what == "talk":
    for step in range(600):
        dist.all_reduce(torch.ones(1))
        time.sleep(0.1)
dist.destroy_process_group()
"""


class Started:
    """A command that runs, with what it has printed."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], cwd: Path) -> None:
        self._printed = cwd / f"printed-{len(list(cwd.glob('printed-*')))}.txt"
        self.cwd = cwd
        with self._printed.open("wb") as file:
            self.child = subprocess.Popen(
                argv,
                env=environ,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        """All that it has printed."""
        return self._printed.read_text(errors="replace")

    def until(self, words: str, times: int = 1, limit_s: float = LIMIT_S) -> None:
        """Wait until it has printed some words that often."""
        wait_until(
            lambda: self.printed.count(words) >= times or self.child.poll() is not None, limit_s
        )
        assert self.printed.count(words) >= times, self.printed

    def ends(self) -> int:
        """Wait for its end, and return its exit code."""
        return self.child.wait(LIMIT_S)

    def close(self) -> None:
        """End it, if it runs."""
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGTERM)
            self.child.wait(LIMIT_S)


class Launch(Started):
    """One `distrun launch`, and its record."""

    def __init__(self, words: Sequence[str], environ: Mapping[str, str], cwd: Path) -> None:
        super().__init__([sys.executable, "-m", "distrun", "launch", *words], environ, cwd)

    def record(self) -> dict[str, Any]:
        """Return run.json of its only run."""
        (file,) = (self.cwd / "runs").glob("*/run.json")
        found: dict[str, Any] = json.loads(file.read_text())
        return found


@contextmanager
def launched(
    hosts: Hosts, cwd: Path, *words: str, environ: Mapping[str, str] | None = None
) -> Iterator[Launch]:
    """Launch the script above, or what the words name, on the hosts that the words name."""
    (cwd / "train.py").write_text(SCRIPT)
    launch = Launch(words, {**hosts.ssh_environ(), **(environ or {})}, cwd)
    try:
        yield launch
    finally:
        launch.close()


def nothing_is_left(hosts: Hosts, limit_s: float = GONE_WITHIN_S) -> None:
    """Wait until no process and no file of a run is left on any host."""
    wait_until(lambda: not any(map(hosts.pids, hosts.names)), limit_s)
    left = {name: hosts.files(name) for name in hosts.names}
    assert not any(left.values()), left
