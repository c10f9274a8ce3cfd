"""What every test needs: the command as a user runs it, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.selection import pytest_addoption, pytest_collection_modifyitems  # noqa: F401 - hooks

SCENARIOS = Path(__file__).parent / "scenarios"
TIMES = int(os.environ.get("DISTRUN_TEST_TIMES", "5"))
"""How often a test launches what has to come out the same every time. By hand: 20 and 50."""
_MARK = "DISTRUN_TEST_MARK"
_GONE_WITHIN_S = 5.0


def marked_processes(mark: str) -> dict[int, str]:
    """Return live processes whose environment carries the mark, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if f"{_MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(entry.name)] = command.decode(errors="replace")
        except OSError:
            continue
    return found


def wait_until(condition: Callable[[], object], timeout_s: float = 20.0, what: str = "") -> None:
    """Wait for a condition, or fail."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s} s in vain for {what or condition}")
        time.sleep(0.02)  # the clock only paces the asking


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard() -> None:
    """A shell starts its background jobs deaf to SIGINT, and all that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def own_temporary_directory() -> Iterator[None]:
    """For what tests start: torchrun leaves a directory there a run, launch its list of them."""
    before = {name: os.environ.get(name) for name in ("TMPDIR", "XDG_STATE_HOME")}
    with tempfile.TemporaryDirectory(prefix="distrun-") as directory:
        os.environ.update(dict.fromkeys(before, directory))
        yield
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


@pytest.fixture(scope="session")
def warm_ranks() -> Iterator[None]:
    """The server that ranks are forked from: it outlives the tests that use it."""
    from distrun.testing.warm import stop_server, warm_server

    warm_server()
    yield
    stop_server()


@pytest.fixture(autouse=True)
def no_process_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Fail a test that leaves a process behind 5 s after its end; yields its mark."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(_MARK, mark)
    yield mark
    if not sys.platform.startswith("linux"):
        return
    deadline = time.monotonic() + _GONE_WITHIN_S
    while (left := marked_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)  # the clock only paces the asking
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"processes left behind: {left}"


@pytest.fixture
def command() -> list[str]:
    """The words that start distrun as this environment has it."""
    return [sys.executable, "-m", "distrun"]


@pytest.fixture
def distrun(tmp_path: Path, command: list[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `distrun …` in the test's own directory to its end."""

    def run(
        *words: str | Path, timeout_s: float = 60.0, **options: object
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *map(str, words)],
            **{  # type: ignore[call-overload]
                "cwd": tmp_path,
                "capture_output": True,
                "text": True,
                "timeout": timeout_s,
                "stdin": subprocess.DEVNULL,
                **options,
            },
        )

    return run


def only_run(directory: Path) -> Path:
    """Return the one run directory below `directory`/runs."""
    (run,) = (directory / "runs").iterdir()
    return run
