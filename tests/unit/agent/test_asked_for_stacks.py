"""A rank that is asked for its stack is not disturbed by that, whatever its threads do."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from distrun.agent.rank import Rank
from distrun.agent.records import Records
from distrun.agent.stack_request import StackRequest
from distrun.processes import send_to_main_thread
from distrun.signals import STACKS

ROOT = Path(__file__).parents[3]
PROGRAM = f"""
import json, os, signal, sys, threading, time
sys.path.insert(0, {str(ROOT)!r})
from distrun.agent.rank_boot import prepare
prepare(int(sys.argv[1]), int(sys.argv[2]))

def work():
    while True:
        json.loads(json.dumps([1, 2, 3]))

def main():
    print("ready", flush=True)
    sys.stdin.read()

threading.Thread(target=work, daemon=True).start()
main()
os._exit(0)
"""
LAST = "in <module>\n"
"""The end of what it writes."""
TIMES = 1500
"""With the stacks of all threads, CPython 3.10 to 3.13 fell within 29 to 669."""


pytestmark = pytest.mark.skipif(not STACKS, reason="there is no signal for stacks here")


def test_a_rank_with_a_thread_at_work_tells_where_its_main_thread_is_and_lives_on(
    tmp_path: Path,
) -> None:
    report, report_end = os.pipe()
    with (tmp_path / "stacks").open("wb") as stacks:
        words = [sys.executable, "-c", PROGRAM, str(report_end), str(stacks.fileno())]
        rank = subprocess.Popen(
            words,
            pass_fds=(report_end, stacks.fileno()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert rank.stdout
        assert rank.stdin
        assert rank.stdout.readline() == "ready\n"
        for told in range(TIMES):
            send_to_main_thread(rank.pid, STACKS)
            while rank.poll() is None and (tmp_path / "stacks").read_text().count(LAST) <= told:
                pass  # it writes at once
        rank.communicate("", timeout=30)
    os.close(report)
    os.close(report_end)
    assert rank.returncode == 0
    told = (tmp_path / "stacks").read_text()
    assert told.count("in main") == TIMES
    assert "in work" not in told


# --- the request of the agent ---------------------------------------------------------------

PREPARED = f"""
import ctypes, json, os, sys, time
sys.path.insert(0, {str(ROOT)!r})
from distrun.agent.rank_boot import prepare
prepare(int(sys.argv[1]), int(sys.argv[2]))
"""
CHURNS = """
def called(n):
    return n if n < 1 else called(n - 1) + len([x for x in (lambda: n,)])

def work():
    while True:
        called(5)
        json.loads(json.dumps([1, 2]))

print("ready", flush=True)
work()
"""
IN_C = """
def held():
    ctypes.PyDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)  # with the GIL

print("ready", flush=True)
held()
"""
SLEEPS = """
def waits():
    time.sleep(1000)

print("ready", flush=True)
waits()
"""


@contextmanager
def prepared(script: str) -> Iterator[tuple[Rank, Records, subprocess.Popen[bytes]]]:
    """A rank without a recorder that runs a script."""
    with selectors.DefaultSelector() as selector:
        rank = Rank(0, apart=False)
        records = Records(selector, lambda: [rank.pid])
        fds = rank.open([None] * 3)
        child = subprocess.Popen(
            [sys.executable, "-c", PREPARED + script, *map(str, fds[3:])],
            pass_fds=fds[3:],
            stdout=subprocess.PIPE,
        )
        rank.pid = child.pid
        for fd in fds:
            os.close(fd)
        try:
            assert child.stdout and child.stdout.readline() == b"ready\n"
            yield rank, records, child
        finally:
            child.kill()
            child.communicate()
            records.close()
            rank.close()


def answer(rank: Rank, records: Records) -> str:
    """Ask once, as the agent does."""
    request = StackRequest(rank, records, time.monotonic(), examines=False)
    deadline = time.monotonic() + 30
    while not request.is_done and time.monotonic() < deadline:
        request.advance(time.monotonic())
        time.sleep(0.02)  # as often as the agent does
    return request.text()


def test_a_main_thread_that_runs_python_is_not_read_while_its_frames_change() -> None:
    with prepared(CHURNS) as (rank, records, child):
        for _ in range(5):
            told = answer(rank, records)
            assert "in work\n" in told if sys.version_info < (3, 13) else not told
        assert child.poll() is None, "it crashed"


@pytest.mark.parametrize(("script", "function"), [(IN_C, "held"), (SLEEPS, "waits")])
def test_a_main_thread_that_stands_still_is_read_from_c(script: str, function: str) -> None:
    with prepared(script) as (rank, records, child):
        deadline = time.monotonic() + 60
        while f"in {function}\n" not in (told := answer(rank, records)):
            assert time.monotonic() < deadline, told  # it may not be there yet
        assert child.poll() is None
