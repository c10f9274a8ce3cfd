"""How often `distrun launch --hosts` logs in to a host, and whose connections it uses."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Hosts
from tests.cluster.launches import SCRIPT, launched, nothing_is_left

TWO = ("--hosts", "n01,n02", "--nproc-per-node", "1")
pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


def log_ins(hosts: Hosts, name: str) -> int:
    """Return how often somebody has logged in to a host."""
    return (hosts.directory / f"sshd_{name}.log").read_text().count("Accepted publickey")


def test_a_launch_logs_in_once_to_each_host(hosts: Hosts, tmp_path: Path) -> None:
    before = [log_ins(hosts, name) for name in ("n01", "n02")]
    with launched(hosts, tmp_path, *TWO, "train.py", "end") as launch:
        assert launch.ends() == 0, launch.printed
    assert [log_ins(hosts, name) for name in ("n01", "n02")] == [n + 1 for n in before]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory for sockets."""
    with tempfile.TemporaryDirectory(prefix="ssh-") as name:
        yield Path(name)


def test_the_shared_connection_of_a_user_is_used_and_outlives_the_run(
    hosts: Hosts, tmp_path: Path, short_path: Path
) -> None:
    """ControlMaster and ControlPersist of ssh_config(5); one that is there makes a log-in cheap."""
    shared = [f"-oControlPath={short_path}/%h", "-oControlMaster=auto", "-oControlPersist=60"]
    ssh = tmp_path / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nexec {hosts.directory}/bin/ssh {" ".join(shared)} "$@"\n')
    ssh.chmod(0o755)
    path = f"{ssh.parent}:{hosts.ssh_environ()['PATH']}"
    before = log_ins(hosts, "n01")
    try:
        for _ in range(2):
            with launched(
                hosts, tmp_path, *TWO, "train.py", "end", environ={"PATH": path}
            ) as launch:
                assert launch.ends() == 0, launch.printed
        assert log_ins(hosts, "n01") == before + 1
    finally:
        for name in ("n01", "n02"):
            done = subprocess.run([ssh, "-O", "exit", name], capture_output=True, timeout=20)
            assert done.returncode == 0, done.stderr
    nothing_is_left(hosts)


def test_an_agent_that_has_gone_before_the_start_is_started_anew(
    hosts: Hosts, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    code = (
        "import os, signal, time\n"
        "from distrun.api.launch import Job, prepare, read, result_of, start\n"
        "from distrun.processes import start_time\n"
        "job = Job(script='train.py', args=['end'], hosts='n01,n02', nproc_per_node=1)\n"
        "prepared = prepare(*read.with_header(job))\n"
        "(pid,) = [each.pid for each in prepared.agents.of(['n02']).values()]\n"
        "os.kill(pid, signal.SIGKILL)\n"
        "while start_time(pid): time.sleep(0.01)\n"
        "client = start(prepared)\n"
        "*_, last = client.events()\n"
        "print(result_of(client, last).outcome)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=hosts.ssh_environ(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == "succeeded\n", done.stderr
    nothing_is_left(hosts)
