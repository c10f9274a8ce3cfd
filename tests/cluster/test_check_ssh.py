"""`distrun check --hosts` over a real sshd on each of two hosts, from one of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.hosts import Hosts

A, B = "n01", "n02"
Check = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


@pytest.fixture
def check(hosts: Hosts, tmp_path: Path) -> Check:
    """Run `distrun check` on the first host."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "distrun", "check", *words]
        return hosts.run(A, command, env=hosts.ssh_environ(), cwd=tmp_path, timeout_s=90)

    return run


def report_of(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.stderr == ""
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_two_hosts_are_read_over_ssh_and_reach_one_another(check: Check) -> None:
    report = report_of(check("--hosts", f"{A},{B}", "--json"))
    nodes = report["nodes"]
    assert [(n["name"], n["host"]["hostname"], n["problem"]) for n in nodes] == [
        (A, A, ""),
        (B, B, ""),
    ]
    assert [f for f in report["findings"] if f["id"] in ("nodes.reach", "host.port")] == []
    assert [len(n["reaches"]) for n in nodes] == [1, 2]
    assert all(abs(n["host"]["clock_offset_s"]) < 0.1 for n in nodes)


def test_a_host_without_its_daemon_is_told_and_the_other_is_read(
    check: Check, hosts: Hosts
) -> None:
    hosts.stop_sshd(B)
    result = check("--hosts", f"{A},{B}", "--json")
    assert result.returncode == 3
    first, second = report_of(result)["nodes"]
    assert first["problem"] == ""
    assert "Connection refused" in second["problem"]


def test_a_host_that_does_not_know_the_key_does_not_ask_for_a_password(check: Check) -> None:
    result = check("--hosts", "unknown-key", "--json")
    assert result.returncode == 3
    assert "Permission denied" in report_of(result)["nodes"][0]["problem"]


def test_the_interpreter_that_is_named_is_taken_and_no_other(check: Check) -> None:
    (node,) = report_of(check("--hosts", B, "--python", sys.executable, "--json"))["nodes"]
    assert node["problem"] == ""
    named = check("--hosts", B, "--python", "/no/such/python", "--json")
    assert named.returncode == 3
    assert "/no/such/python" in report_of(named)["nodes"][0]["problem"]
