"""Who died first is known though nobody looked for a while."""

from __future__ import annotations

import subprocess
import sys

import pytest

from distrun.agent import deaths

IN_AN_INTERPRETER_OF_ITS_OWN = """
import os
import signal
from distrun.agent import deaths

def start():
    if pid := os.fork():
        return pid
    while True:
        signal.pause()

def let_die(*children):
    '''End them one after another; none of them is reaped.'''
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

watched = deaths.{kind}()
a, b, c, d = children = [start() for _ in range(4)]
for pid in children:
    watched.watch(pid)
let_die(b)
assert list(watched.reap()) == [(b, signal.SIGKILL)]
let_die(d, a, c)
told = [pid for pid, status in watched.reap() if status == signal.SIGKILL]
assert told == [d, a, c] if {in_order} else sorted(told) == [a, c, d], told
watched.close()
"""


@pytest.mark.parametrize(
    ("kind", "in_order"),
    [
        ("_ByAge", False),
        pytest.param(
            "_InOrder",
            True,
            marks=pytest.mark.skipif(not deaths._has_pidfds(), reason="no pidfds here"),
        ),
    ],
)
def test_each_death_is_told_once_and_where_pidfds_are_in_the_order_of_dying(
    kind: str, in_order: bool
) -> None:
    script = IN_AN_INTERPRETER_OF_ITS_OWN.format(kind=kind, in_order=in_order)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
