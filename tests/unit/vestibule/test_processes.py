"""Real processes: they are found by their mark, die with their parent, and end for good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distrun import processes
from distrun.env import TAG
from tests.conftest import wait_until

ROOT = str(Path(__file__).parents[3])
WAIT = "import signal; signal.pause()"
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `python -c` in a session of its own; nothing of it is left after the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(code: str, **environ: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": ROOT, **environ},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(child)
        return child

    yield begin
    for child in started:
        processes.send_group(child.pid, signal.SIGKILL)
        child.wait()
        assert child.stdout
        child.stdout.close()


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def alive(pid: int) -> bool:
    return processes.start_time(pid) != ""


def test_a_pid_and_its_start_name_one_process(start: Start) -> None:
    child = start("print(flush=True);" + WAIT)
    said(child)
    began = processes.start_time(child.pid)
    assert began
    assert processes.start_time(child.pid) == began
    child.kill()
    wait_until(lambda: not alive(child.pid), what="the zombie to count as dead")
    child.wait()
    assert processes.start_time(child.pid) == ""
    assert processes.start_time(os.getpid()) != began


@pytest.mark.skipif(not processes.LINUX, reason="/proc/PID/stat is Linux's")
def test_a_process_may_call_itself_whatever_it_likes(start: Start) -> None:
    naming = "open('/proc/self/comm', 'w').write(') S 1 (x'); print(flush=True);"
    child = start(naming + WAIT)
    said(child)
    assert alive(child.pid)
    assert child.pid in processes.descendants(os.getpid())


def test_processes_are_found_by_their_mark_and_by_nobody_elses(start: Start) -> None:
    whole = start("print(flush=True);" + WAIT, **{TAG: "run-a"})
    node = start("print(flush=True);" + WAIT, **{TAG: "run-a/1"})
    other = start("print(flush=True);" + WAIT, **{TAG: "run-ab"})
    later = start("print(flush=True);" + WAIT, X=f"{TAG}=run-a")
    for child in (whole, node, other, later):
        said(child)
    assert set(processes.marked("run-a")) == {whole.pid, node.pid}
    assert processes.marked("run-a/1") == [node.pid]
    assert processes.marked("run-") == []


GRANDCHILD = """
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, '-c', 'import signal; print(flush=True); signal.pause()'],
                         start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
signal.pause()
"""


def test_descendants_are_found_nearest_first(start: Start) -> None:
    child = start(GRANDCHILD)
    grandchild = int(said(child))
    below = processes.descendants(os.getpid())
    assert below.index(child.pid) < below.index(grandchild)
    assert processes.descendants(child.pid) == [grandchild]
    assert processes.descendants(grandchild) == []
    os.kill(grandchild, signal.SIGKILL)


def test_a_sweep_kills_grandchildren_in_sessions_of_their_own(start: Start) -> None:
    child = start(GRANDCHILD, **{TAG: "run-s/0"})
    grandchild = int(said(child))
    spared = start("print(flush=True);" + WAIT, **{TAG: "run-s/0"})
    said(spared)
    assert processes.sweep("run-s", spare=[spared.pid]) == 2
    assert not alive(child.pid)
    assert not alive(grandchild)
    assert alive(spared.pid)
    assert processes.sweep("run-s") == 1
    assert processes.sweep("run-s") == 0


def test_a_sweep_below_a_process_needs_no_mark(start: Start) -> None:
    child = start(GRANDCHILD)
    grandchild = int(said(child))
    assert processes.sweep("no-such-run", below=child.pid) == 1
    assert alive(child.pid)
    assert not alive(grandchild)


PARENT = """
import os, signal, sys
from distrun import processes
processes.LINUX = {linux}
read, write = os.pipe()
parent = os.getpid()
if os.fork() == 0:
    os.close(write)
    processes.die_with_parent(parent, read)
    print(os.getpid(), flush=True)
    while True:
        signal.pause()
os.close(read)
signal.pause()
"""


@pytest.mark.parametrize("linux", [True, False], ids=["PR_SET_PDEATHSIG", "guard pipe"])
def test_a_child_dies_with_its_parent(start: Start, linux: bool) -> None:
    if linux and not processes.LINUX:
        pytest.skip("prctl is Linux's")
    parent = start(PARENT.format(linux=linux))
    child = int(said(parent))
    assert alive(child)
    parent.kill()
    wait_until(lambda: not alive(child), 5, "the child to follow its parent")


def test_a_child_whose_parent_is_gone_already_ends_at_once(start: Start) -> None:
    code = (
        "import os; from distrun import processes\n"
        "child = os.fork()\n"
        "if not child: processes.die_with_parent(os.getppid() + 1); os._exit(0)\n"
        "print(os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)"
    )
    assert said(start(code)) == str(int(signal.SIGKILL))


def test_a_signal_to_nobody_is_no_error(start: Start) -> None:
    child = start("print(flush=True)")
    said(child)
    child.wait()
    assert processes.send(child.pid, signal.SIGTERM) is False
    processes.send_group(child.pid, signal.SIGTERM)
    assert processes.send(os.getpid(), 0) is True


def test_children_that_nobody_waits_for_are_reaped(start: Start) -> None:
    code = (
        "import os; from distrun import processes\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0: os._exit(0)\n"
        "while processes.reap_children() or processes.descendants(os.getpid()): pass\n"
        "processes.reap_children(); print('none', flush=True)"
    )
    assert said(start(code)) == "none"
