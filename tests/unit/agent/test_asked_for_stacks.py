"""A rank that is asked for its stacks is not disturbed by that, whatever its threads do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.skipif(not STACKS, reason="there is no signal for stacks here")
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
            rank.send_signal(STACKS)
            while rank.poll() is None and (tmp_path / "stacks").read_text().count(LAST) <= told:
                pass  # it writes at once
        rank.communicate("", timeout=30)
    os.close(report)
    os.close(report_end)
    assert rank.returncode == 0
    told = (tmp_path / "stacks").read_text()
    assert told.count("in main") == TIMES
    assert "in work" not in told
