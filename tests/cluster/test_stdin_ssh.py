"""The launcher's stdin on another machine: a file, a pipe, a terminal."""

from __future__ import annotations

import hashlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.hosts import Hosts
from tests.cluster.launches import nothing_is_left
from tests.conftest import wait_until

TWO = ("--hosts", "n01,n02", "--nproc-per-node", "1", "--no-check")
HASH = "import hashlib, sys; print('read', hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
DEBUG = """
import os
answer = 41
if os.environ["RANK"] == "1":
    breakpoint()
print("answer", answer)
"""
pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


def launch(hosts: Hosts, cwd: Path, *words: str, **streams: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "distrun", "launch", *TWO, *words]
    return subprocess.Popen(command, cwd=cwd, env=hosts.ssh_environ(), **streams)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_rank_0_reads_all_of_it_and_other_ranks_nothing(
    hosts: Hosts, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "read.py").write_text(HASH)
    data = os.urandom(3 << 20)
    (tmp_path / "data").write_bytes(data)
    with (tmp_path / "data").open("rb") as file:
        stdin = file if kind == "file" else subprocess.PIPE
        child = launch(hosts, tmp_path, "read.py", stdin=stdin, stdout=subprocess.PIPE)
        printed, _ = child.communicate(None if kind == "file" else data, timeout=120)
    assert child.returncode == 0
    assert set(printed.decode().split()) >= {
        hashlib.sha256(data).hexdigest(),
        hashlib.sha256(b"").hexdigest(),
    }
    nothing_is_left(hosts)


def test_a_rank_that_reads_nothing_ends_whoever_writes(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "end.py").write_text("print('done')")
    child = launch(hosts, tmp_path, "end.py", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    printed, _ = child.communicate(bytes(2 << 20), timeout=120)
    assert (child.returncode, printed.count(b"done")) == (0, 2)


def test_a_rank_on_another_machine_can_be_debugged(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "debug.py").write_text(DEBUG)
    ours, theirs = pty.openpty()
    child = launch(
        hosts,
        tmp_path,
        *("--debug-rank", "1", "debug.py"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    seen = b""

    def shows(words: bytes) -> bool:
        nonlocal seen
        try:
            seen += os.read(ours, 1 << 16)
        except (BlockingIOError, OSError):
            pass
        return words in seen

    wait_until(lambda: shows(b"(Pdb) "), 100, "the prompt")
    os.write(ours, b"p answer + 1\n")
    wait_until(lambda: shows(b"42"), 20, "the answer")
    os.write(ours, b"c\n")
    wait_until(lambda: shows(b"answer 41"), 60, "the end")
    assert child.wait(60) == 0
    os.close(ours)
    nothing_is_left(hosts)
