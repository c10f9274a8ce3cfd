"""bench-comm, verify and check --deep over two hosts behind sshd."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.hosts import Hosts
from tests.cluster.launches import nothing_is_left
from tests.conftest import wait_until

Command = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture
def command(hosts: Hosts, tmp_path: Path) -> Command:
    """Run a command of distrun on this machine, with `--hosts n01,n02`."""

    def run(name: str, *words: str, on: str = "n01,n02") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "distrun", name, *words, "--hosts", on],
            env=hosts.ssh_environ(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
        )

    return run


def test_bench_comm_measures_over_the_hosts_and_names_them(hosts: Hosts, command: Command) -> None:
    one = ("--nproc-per-node", "1")
    done = command("bench-comm", "--op", "pairs", *one)
    assert done.returncode == 0, done.stderr
    assert "0 n01" in done.stdout
    assert "1 n02" in done.stdout
    nothing_is_left(hosts)


def test_bench_comm_measures_on_a_host_without_distrun(hosts: Hosts, command: Command) -> None:
    plain = hosts.plain()
    small = ("-b", "8", "-e", "8", "-n", "2", "--nproc-per-node", "1")
    place = ("--workdir", "/tmp", "--bootstrap", "--python", sys.executable)
    done = command("bench-comm", *small, *place, "--json", on=f"n01,{plain}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nnodes"] == 2
    nothing_is_left(hosts)


@pytest.mark.thorough  # 200 s; tests/process/test_verify.py is beside it
def test_verify_compares_ranks_on_two_hosts_with_one(hosts: Hosts, command: Command) -> None:
    done = command("verify", "ddp_gpt", "--steps", "3", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    text = json.dumps(report)
    assert "ddp 2" in text
    assert "ddp 4" in text
    wait_until(lambda: not any(map(hosts.pids, hosts.names)), 15)  # the recipe's caches stay


def test_a_deep_check_runs_its_small_job_on_the_hosts(hosts: Hosts, command: Command) -> None:
    done = command("check", "--deep", "--json")
    report = json.loads(done.stdout)
    measured = report["nodes"][0]["measured"]
    assert (measured["problem"], measured["links_over"]) == ("", "node"), done.stderr
    nothing_is_left(hosts)
