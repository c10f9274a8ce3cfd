"""A run.json is data from outside: its fields are what they are said to be, or it is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from distrun.processes import start_time
from distrun.runs import record
from distrun.runs.directory import RunDirectory
from distrun.runs.place import SupervisorProcess, here
from distrun.runs.record import RunRecord
from tests.conftest import wait_until

GOOD = {"run_id": "r1", "recipe": "t.py", "nnodes": 1, "nproc_per_node": 2, "started_at": 1.5}
LINUX_ONLY = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def read(directory: Path, text: str | bytes) -> RunRecord:
    data = text if isinstance(text, bytes) else text.encode()
    (directory / "run.json").write_bytes(data)
    return record.read(RunDirectory(directory))


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    written = RunRecord(**GOOD, command=["distrun"], plan={"grace_s": 2}, **asdict(here()))
    record.write(run, written)
    assert record.read(run) == written
    assert written.grace_s == 2.0


def test_fields_of_a_later_version_are_left_out(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({**GOOD, "unheard_of": {"a": 1}}))
    assert record.read(run) == RunRecord(**GOOD)


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": 5},
        {"run_id": None},
        {"recipe": ["t.py"]},
        {"nnodes": True},
        {"nnodes": "1"},
        {"nproc_per_node": 1.5},
        {"nproc_per_node": 10**30},
        {"started_at": "now"},
        {"started_at": -1},
        {"started_at": 1e300},
        {"ended_at": "later"},
        {"ended_at": []},
        {"exit_code": "0"},
        {"command": "distrun"},
        {"command": ["distrun", 5]},
        {"plan": []},
        {"versions": {"torch": 2}},
        {"git": 1},
        {"supervisor_pid": "-1"},
        {"supervisor_pid": None},
        {"supervisor_start": 7},
        {"host": 5},
        {"uid": "root"},
        {"summary": {}},
    ],
)
def test_a_field_of_the_wrong_type_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        read(tmp_path, json.dumps({**GOOD, **change}))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"5",
        b"[]",
        b'"run"',
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"plan":' * 100_000,
        json.dumps({**GOOD, "plan": {"a": [[[]]]}}).replace("[]", "[" * 40 + "]" * 40).encode(),
        json.dumps(GOOD).replace("1.5", "NaN").encode(),
        json.dumps(GOOD).replace("1.5", "Infinity").encode(),
        json.dumps(GOOD).replace("1.5", "1" * 5000).encode(),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(ValueError):
        read(tmp_path, text)


@pytest.mark.parametrize("grace", ["5", None, -1, [], float("1e300"), True])
def test_a_grace_that_is_no_time_is_the_default(grace: object) -> None:
    assert RunRecord(**GOOD, plan={"grace_s": grace}).grace_s == 30.0


# --- where a pid means something -----------------------------------------------------------


@pytest.fixture
def stranger() -> Iterator[SupervisorProcess]:
    """A living process of this user that supervises nothing."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield SupervisorProcess(child.pid, start_time(child.pid), "r1")
    assert child.poll() is None, "it was signalled"
    child.kill()
    child.wait()


def test_a_process_that_supervises_nothing_is_no_supervisor(stranger: SupervisorProcess) -> None:
    assert not stranger.is_alive
    assert not stranger.signal(15)
    forged = RunRecord(
        **GOOD, supervisor_pid=stranger.pid, supervisor_start=stranger.start, **asdict(here())
    )
    assert forged.state == "lost"


@pytest.mark.parametrize("pid", [-(2**31), -2, -1, 0, 1, 2**31, 2**63 - 1])
def test_no_pid_but_that_of_a_process_is_signalled(pid: int) -> None:
    assert not SupervisorProcess(pid, "", "r1").signal(0)
    assert not SupervisorProcess(pid, start_time(1), "r1").signal(0)


@LINUX_ONLY
def test_the_supervisor_of_this_run_alone_is_signalled(tmp_path: Path) -> None:
    program = tmp_path / "supervise" / "__main__.py"
    program.parent.mkdir()
    program.write_text(
        "import signal, time\n"
        "time.sleep(0.5)\n"
        "signal.signal(signal.SIGTERM, lambda *_: exit(7))\n"
        "time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, program, "r1"])
    start = start_time(child.pid)
    wait_until(lambda: SupervisorProcess(child.pid, start, "r1").is_alive)
    for other in (
        SupervisorProcess(child.pid, start, "r2"),
        SupervisorProcess(child.pid, start + "0", "r1"),
        SupervisorProcess(child.pid, "", "r1"),
    ):
        assert not other.signal(15)
    assert SupervisorProcess(child.pid, start, "r1").signal(15)
    assert child.wait(20) == 7, "it was waited for until it had a handler"
    assert not SupervisorProcess(child.pid, start, "r1").signal(15)


@pytest.mark.parametrize(
    ("elsewhere", "state"),
    [
        ({"host": "other"}, "running on other"),
        ({"pid_namespace": "pid:[7]"}, f"running on {here().host}"),
        ({"boot_id": "another"}, f"running on {here().host}"),
        ({"uid": os.getuid() + 1}, f"running on {here().host}"),
        ({"host": ""}, "running on an unknown host"),
    ],
)
def test_a_run_elsewhere_is_neither_lost_nor_ours(elsewhere: dict[str, Any], state: str) -> None:
    now = 4e9  # after any boot
    found = RunRecord(**{**GOOD, "started_at": now, **asdict(here()), **elsewhere})
    assert found.state == state
    assert not found.is_over


@LINUX_ONLY
def test_a_run_from_before_the_last_boot_of_this_machine_is_lost() -> None:
    found = RunRecord(**{**GOOD, **asdict(here()), "boot_id": "the one before"})
    assert found.state == "lost"
