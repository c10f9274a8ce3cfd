"""`distrun check --hosts` over a real sshd in each of two namespaces, from one of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.two_nodes import ADDRESSES, NAMES, needs_namespaces, two_nodes, within
from tests.conftest import wait_until

A, B = NAMES
Check = Callable[..., subprocess.CompletedProcess[str]]
_SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
pytestmark = [
    *needs_namespaces,
    pytest.mark.skipif(_SSHD is None, reason="needs sshd (openssh-server)"),
    pytest.mark.skipif(shutil.which("ssh") is None, reason="needs ssh"),
    pytest.mark.timeout(120),
]


def key(path: Path) -> Path:
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(words, check=True, timeout=20)
    return path


def sshd_config(directory: Path, address: str) -> str:
    settings = {
        "ListenAddress": address,
        "HostKey": directory / "host_key",
        "AuthorizedKeysFile": directory / "own_key.pub",
        "PidFile": "none",
        "PermitRootLogin": "prohibit-password",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "UsePAM": "no",
        "StrictModes": "no",
    }
    return "".join(f"{name} {value}\n" for name, value in settings.items())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """A daemon on each node, and an ssh on PATH that has the key."""
    key(tmp_path / "host_key")
    own = key(tmp_path / "own_key")
    (tmp_path / "ssh_config").write_text(
        f"Host *\n User root\n IdentityFile {own}\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {tmp_path / 'known'}\n StrictHostKeyChecking accept-new\n"
    )
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path / "ssh_config"} "$@"\n')
    ssh.chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself up
    daemons: dict[str, subprocess.Popen[bytes]] = {}
    with two_nodes():
        try:
            for name, address in zip(NAMES, ADDRESSES, strict=True):
                config = tmp_path / f"sshd_{name}"
                config.write_text(sshd_config(tmp_path, address))
                log = open(tmp_path / f"{name}.log", "wb")
                words = within(name, str(_SSHD), "-D", "-e", "-f", str(config))
                daemons[name] = subprocess.Popen(words, stderr=log, start_new_session=True)
                log.close()
            for name in NAMES:
                up = (tmp_path / f"{name}.log").read_text
                wait_until(lambda up=up: "Server listening" in up(), 20, "sshd")
            yield daemons
        finally:
            for daemon in daemons.values():
                if daemon.poll() is None:
                    os.killpg(daemon.pid, signal.SIGTERM)
                    daemon.wait(timeout=10)


@pytest.fixture
def check(cluster: object, tmp_path: Path) -> Check:
    """Run `distrun check` on the first node."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = within(A, sys.executable, "-m", "distrun", "check", *words)
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        environ = {**os.environ, "PATH": path, "HOME": str(tmp_path)}
        return subprocess.run(
            command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=90
        )

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
    check: Check, cluster: dict[str, subprocess.Popen[bytes]]
) -> None:
    os.killpg(cluster[B].pid, signal.SIGTERM)
    cluster[B].wait(timeout=10)
    result = check("--hosts", f"{A},{B}", "--json")
    assert result.returncode == 3
    first, second = report_of(result)["nodes"]
    assert first["problem"] == ""
    assert "Connection refused" in second["problem"]


def test_a_host_that_does_not_know_the_key_does_not_ask_for_a_password(
    check: Check, tmp_path: Path
) -> None:
    (tmp_path / "own_key.pub").write_text("")
    result = check("--hosts", B, "--json")
    assert result.returncode == 3
    assert "Permission denied" in report_of(result)["nodes"][0]["problem"]


def test_the_interpreter_that_is_named_is_taken_and_no_other(check: Check) -> None:
    (node,) = report_of(check("--hosts", B, "--python", sys.executable, "--json"))["nodes"]
    assert node["problem"] == ""
    named = check("--hosts", B, "--python", "/no/such/python", "--json")
    assert named.returncode == 3
    assert "/no/such/python" in report_of(named)["nodes"][0]["problem"]
