"""What the processes of a rank have used, of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from distrun.agent.process_tree import used_by
from tests.conftest import wait_until

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
    pytest.mark.timeout(60),
]

RANK = """
import os, subprocess, sys
burn = "import os\\nwhile sum(os.times()[:2]) < 0.3: pass\\n"
subprocess.run([sys.executable, "-S", "-c", burn])
child = subprocess.Popen(
    [sys.executable, "-S", "-c", burn + "print(flush=True); input()"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
)
child.stdout.readline()
os.write(1, b"ready\\n")
sys.stdin.readline()
"""


@pytest.fixture
def rank() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child that has ended, and one that lives in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", RANK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout and process.stdout.readline() == b"ready\n"
    yield process
    process.communicate(b"\n", timeout=20)


def test_the_time_of_children_counts_living_and_ended(rank: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: used_by([rank.pid])[rank.pid]["state"] == "S")
    (used,) = used_by([rank.pid]).values()
    assert used["cpu_s"] >= 0.6
    assert used["io_nbytes"] > 0 and used["faults"] > 0
    assert used["is_traced"] is False


def test_of_a_process_that_is_gone_nothing_is_told(rank: subprocess.Popen[bytes]) -> None:
    assert used_by([]) == {}
    assert list(used_by([rank.pid, 2**22 + 1])) == [rank.pid]


def test_a_process_above_is_charged_with_what_is_below_only_if_it_is_a_rank(
    rank: subprocess.Popen[bytes],
) -> None:
    both = used_by([os.getpid(), rank.pid])
    assert both[rank.pid]["cpu_s"] == used_by([rank.pid])[rank.pid]["cpu_s"]
