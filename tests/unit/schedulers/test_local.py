"""A run of this machine is asked to end once, as SIGTERM would, and only if it runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from distrun.processes import start_time
from distrun.runs.place import here
from distrun.runs.record import RunRecord
from distrun.schedulers import local
from tests.conftest import wait_until

SUPERVISES = """
import os, signal
def note(signum, frame):
    os.write(1, b"%d" % signum)
    os._exit(0)
for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(signum, note)
os.write(1, b"ready")
while True:
    signal.pause()
"""
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the command line of the supervisor of run "r1", that says what it gets."""
    program = tmp_path / "supervise" / "__main__.py"
    program.parent.mkdir()
    program.write_text(SUPERVISES)
    child = subprocess.Popen([sys.executable, "-S", program, "r1"], stdout=subprocess.PIPE)
    assert child.stdout and child.stdout.read(5) == b"ready"
    yield child
    child.kill()
    child.communicate()


def record_of(supervisor: subprocess.Popen[bytes]) -> RunRecord:
    pid, start = supervisor.pid, start_time(supervisor.pid)
    found = RunRecord("r1", "t.py", 1, 1, 1.0, supervisor_pid=pid, supervisor_start=start)
    return replace(found, **asdict(here()))


def test_a_running_run_gets_sigterm(supervisor: subprocess.Popen[bytes]) -> None:
    running = record_of(supervisor)
    for other in (
        replace(running, ended_at=2.0),
        replace(running, supervisor_start="7"),
        replace(running, host="elsewhere"),
    ):
        assert not local.cancel(other), other.state
    assert supervisor.poll() is None
    assert local.cancel(running)
    assert supervisor.communicate(timeout=20)[0] == b"15"
    wait_until(lambda: not local.cancel(running))
