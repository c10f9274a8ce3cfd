"""`distrun check` on several nodes at once, over ssh and Slurm that lead back to this machine."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]
FAKES = Path(__file__).parents[1] / "fakes"
HERE = ("localhost", "127.0.0.1")
"""Two names of this machine, which every node can resolve."""
pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment where ssh and Slurm are ours."""
    folders = [str(FAKES / "ssh"), str(FAKES / "slurm"), os.environ["PATH"]]
    without_slurm = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    return without_slurm | {"PATH": ":".join(folders), "FAKE_LOG": str(tmp_path / "log")}


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def stand_in(folder: Path, program: str, script: str) -> None:
    """Put a program of some lines of sh into a folder that is looked in first."""
    (folder / program).write_text(f"#!/bin/sh\n{script}\n")
    (folder / program).chmod(0o755)


def checked(
    distrun: Run, environ: Mapping[str, str], *words: str, port: str = ""
) -> tuple[dict[str, Any], int]:
    """Return what --json prints, and the exit code."""
    port = port or free_port()
    result = distrun("check", "--json", "--master-port", port, *words, env=environ)
    assert not [line for line in result.stderr.splitlines() if "settings from" not in line]
    return json.loads(result.stdout), result.returncode


def of_rule(report: dict[str, Any], rule: str) -> list[dict[str, Any]]:
    return [finding for finding in report["findings"] if finding["id"] == rule]


def test_all_hosts_are_read_and_connect_to_one_another_both_ways(
    distrun: Run, environ: dict[str, str]
) -> None:
    port = free_port()
    report, code = checked(distrun, environ, "--hosts", ",".join(HERE), port=port)
    assert code in (0, 1)  # the name of this machine may well mean its loopback
    first, second = report["nodes"]
    assert (first["name"], second["name"]) == HERE
    assert {r["target"] for r in first["reaches"]} == {HERE[1]}
    assert [r["target"] for r in second["reaches"]] == [HERE[0]] * 2
    assert int(port) in {r["port"] for r in second["reaches"]}
    assert of_rule(report, "nodes.reach") == []
    for node in report["nodes"]:
        assert abs(node["host"]["clock_offset_s"]) <= node["host"]["clock_offset_error_s"] + 0.01
    assert report["job"]["nnodes"] == 2


def test_a_port_that_is_taken_on_the_first_node_is_told_of_that_node(
    distrun: Run, environ: dict[str, str]
) -> None:
    with socket.create_server(("", 0)) as listener:
        port = str(listener.getsockname()[1])
        report, code = checked(distrun, environ, "--hosts", ",".join(HERE), port=port)
    (found,) = of_rule(report, "host.port")
    assert (found["node"], found["severity"], code) == (HERE[0], "FAIL", 1)
    assert f"port {port} is in use by another process" in found["observed"]


def test_a_host_that_fails_does_not_hold_the_others_up(
    distrun: Run, environ: dict[str, str]
) -> None:
    report, code = checked(distrun, environ, "--hosts", "localhost,refused,noisy,other,titled")
    assert code == 3
    problems = {node["name"]: node["problem"] for node in report["nodes"]}
    assert problems["localhost"] == problems["noisy"] == problems["titled"] == ""
    assert problems["refused"] == "ssh: connect to host refused port 22: Connection refused"
    assert problems["other"] == "the probe on other has schema 99, not 1"
    assert {f["node"] for f in of_rule(report, "nodes.unreachable")} == {"refused", "other"}
    assert [r["target"] for r in report["nodes"][0]["reaches"]] == ["noisy", "titled"]


def test_no_word_of_a_path_or_of_a_login_becomes_an_option_or_a_command(
    distrun: Run, environ: dict[str, str], tmp_path: Path
) -> None:
    odd = tmp_path / "it's; touch owned #"
    odd.mkdir()
    (odd / "python").symlink_to(sys.executable)
    words = ("--hosts", "ada@localhost:2222", "--python", str(odd / "python"))
    result = distrun("check", "--json", *words, env=environ)
    (node,) = json.loads(result.stdout)["nodes"]
    assert node["name"] == "ada@localhost:2222"
    assert (node["problem"], node["software"]["python"][:2]) == ("", "3.")
    sent = Path(environ["FAKE_LOG"]).read_text().splitlines()
    assert sent[:5] == ["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
    assert sent[5:9] == ["-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"]
    assert sent[9:13] == ["-p", "2222", "--", "ada@localhost"]
    assert not list(tmp_path.rglob("owned")) and not Path("/owned").exists()


@pytest.mark.parametrize("name", ["$(touch${IFS}owned);x", "-oProxyCommand=touch owned", "a;b"])
def test_a_host_with_a_hostile_name_is_never_told_to_ssh(
    distrun: Run, environ: dict[str, str], tmp_path: Path, name: str
) -> None:
    result = distrun("check", "--hosts", name, env=environ)
    assert result.returncode == 2
    assert "is not a host name" in result.stderr
    assert not Path(environ["FAKE_LOG"]).exists() and not list(tmp_path.rglob("owned"))


def test_an_interpreter_that_is_not_there_is_told(distrun: Run, environ: dict[str, str]) -> None:
    words = ("--hosts", "localhost", "--python", "/no/such/python")
    report, code = checked(distrun, environ, *words)
    assert code == 3
    assert "/no/such/python" in report["nodes"][0]["problem"]


def test_a_watch_shows_every_host_every_second(
    command: list[str], environ: dict[str, str], tmp_path: Path
) -> None:
    with open(tmp_path / "out", "wb") as out:
        words = [*command, "check", "--watch", "--hosts", "localhost,refused"]
        child = subprocess.Popen(words, cwd=tmp_path, env=environ, stdout=out, stderr=out)
        try:
            shown = (tmp_path / "out").read_text
            wait_until(lambda: shown().count(" localhost: ") >= 2, 30, "two lines of a host")
        finally:
            child.send_signal(signal.SIGINT)
            assert child.wait(timeout=20) == 130
    assert " refused: ssh: connect to host refused" in shown()


def test_a_watch_ends_when_nobody_answers(distrun: Run, environ: dict[str, str]) -> None:
    result = distrun("check", "--watch", "--hosts", "refused", env=environ)
    assert result.returncode == 3
    assert "no node answers any more; refused: ssh: connect to host refused" in result.stderr
    assert len(result.stdout.splitlines()) == 1


# --- Slurm -------------------------------------------------------------------------------


def test_in_an_allocation_each_of_its_nodes_is_a_step(
    distrun: Run, environ: dict[str, str]
) -> None:
    allocation = {"SLURM_JOB_ID": "55", "SLURM_JOB_NODELIST": "n[1-3]"}
    report, _ = checked(distrun, {**environ, **allocation}, "--on", "slurm")
    assert [node["name"] for node in report["nodes"]] == ["n1", "n2", "n3"]
    assert [node["problem"] for node in report["nodes"]] == [""] * 3
    lines = Path(environ["FAKE_LOG"]).read_text().splitlines()
    assert not any(line.startswith("salloc") for line in lines)
    steps = [shlex.split(line.partition(" sh -c")[0]) for line in lines]
    named = [word for step in steps for word in step if word.startswith("--nodelist")]
    assert sorted(named) == [f"--nodelist=n{i}" for i in (1, 2, 3)]
    assert all({"--jobid=55", "--overlap"} <= set(step) for step in steps)


def test_nodes_that_are_asked_for_are_given_back(distrun: Run, environ: dict[str, str]) -> None:
    report, _ = checked(distrun, environ, "--on", "slurm", "--nodes", "2")
    assert [node["name"] for node in report["nodes"]] == ["n1", "n2"]
    lines = Path(environ["FAKE_LOG"]).read_text().splitlines()
    assert lines[0].startswith("salloc --quiet --nodes=2 ")
    assert lines[-1] == "salloc has them back"
    assert all("--jobid=77" in line for line in lines[1:-1])


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ((), "--exclusive --mem=0"),
        (("--nproc-per-node", "2"), "--exclusive --mem=0"),
        (("--gpus", "0,2"), "--exclusive --mem=0"),
        (("--gpus", "free:3"), "--gpus-per-node=3 --ntasks-per-node=1 --cpus-per-task=3"),
        (
            ("--gpus", "free:4", "--nproc-per-node", "8"),
            "--gpus-per-node=4 --ntasks-per-node=1 --cpus-per-task=8",
        ),
    ],
)
def test_whole_nodes_are_asked_for_or_the_part_that_the_job_needs(
    distrun: Run, environ: dict[str, str], tmp_path: Path, words: tuple[str, ...], asked: str
) -> None:
    stand_in(tmp_path, "salloc", 'echo "$@" > "$FAKE_LOG"; exit 1')
    environ = {**environ, "PATH": f"{tmp_path}:{environ['PATH']}"}
    result = distrun("check", "--on", "slurm", "--nodes", "2", *words, env=environ)
    assert result.returncode == 3
    assert f"{asked} was requested" in result.stderr
    assert Path(environ["FAKE_LOG"]).read_text().startswith(f"--quiet --nodes=2 {asked} sh -c ")


def test_more_nodes_than_there_are_are_refused_in_an_allocation_and_without_one(
    distrun: Run, environ: dict[str, str]
) -> None:
    result = distrun("check", "--on", "slurm", "--nodes", "5", env=environ)
    assert result.returncode == 3
    assert "Slurm does not grant 5 nodes" in result.stderr
    allocation = {"SLURM_JOB_ID": "55", "SLURM_JOB_NODELIST": "n[1-3]"}
    result = distrun("check", "--on", "slurm", "--nodes", "5", env={**environ, **allocation})
    assert result.returncode == 2
    assert "--nodes 5 is more than the 3 nodes of this allocation" in result.stderr


@pytest.mark.parametrize("end", ["", "srun: Terminating StepId=55.0\n"])
def test_why_a_step_ended_is_told_and_not_that_it_did(
    distrun: Run, environ: dict[str, str], tmp_path: Path, end: str
) -> None:
    said = "python3: No module named 'distrun'\nsrun: error: n1: task 0: Exited with exit code 1\n"
    stand_in(tmp_path, "srun", f"printf %s {shlex.quote(said + end)} >&2; exit 1")
    allocation = {"SLURM_JOB_ID": "55", "SLURM_JOB_NODELIST": "n[1-2]"}
    environ = {**environ, **allocation, "PATH": f"{tmp_path}:{environ['PATH']}"}
    report, code = checked(distrun, environ, "--on", "slurm")
    assert code == 3
    assert {node["problem"] for node in report["nodes"]} == {"python3: No module named 'distrun'"}


@pytest.mark.parametrize(
    ("salloc", "said"),
    [
        ("echo 'salloc: error: Invalid account x' >&2; exit 1", "error: Invalid account x"),
        ("echo 'salloc: error: a' >&2; echo revoked >&2; exit 1", "error: a"),
        ("echo 77 >&2; echo 5", "77"),
        ("exit 9", "exit code 9"),
    ],
)
def test_why_slurm_gives_no_nodes_is_told_at_once(
    distrun: Run, environ: dict[str, str], tmp_path: Path, salloc: str, said: str
) -> None:
    stand_in(tmp_path, "salloc", salloc)
    environ = {**environ, "PATH": f"{tmp_path}:{environ['PATH']}"}
    result = distrun("check", "--on", "slurm", "--nodes", "2", env=environ, timeout_s=20)
    assert result.returncode == 3
    assert f"distrun: error: Slurm does not grant 2 nodes: salloc: {said}\n" in result.stderr


@pytest.mark.parametrize("scontrol", ["exit 1", "echo n1; exit 1", "exit 0", "echo; echo ' '"])
@pytest.mark.parametrize("strict", [(), ("--strict",)])
def test_an_allocation_whose_hosts_nobody_names_is_no_healthy_one(
    distrun: Run, environ: dict[str, str], tmp_path: Path, scontrol: str, strict: tuple[str, ...]
) -> None:
    stand_in(tmp_path, "scontrol", scontrol)
    environ = {**environ, "PATH": f"{tmp_path}:{environ['PATH']}"}
    allocation = {"SLURM_JOB_ID": "55", "SLURM_JOB_NODELIST": "n[1-3];x"}
    result = distrun("check", "--on", "slurm", *strict, env={**environ, **allocation})
    assert (result.returncode, result.stdout) == (3, "")
    assert "scontrol lists no hosts of this allocation, 'n[1-3];x'" in result.stderr
    assert "`scontrol show hostnames 'n[1-3];x'` must" in result.stderr


def test_nodes_that_were_asked_for_and_have_no_names_are_given_back(
    distrun: Run, environ: dict[str, str], tmp_path: Path
) -> None:
    stand_in(tmp_path, "scontrol", "exit 1")
    environ = {**environ, "PATH": f"{tmp_path}:{environ['PATH']}"}
    assert distrun("check", "--on", "slurm", "--nodes", "2", env=environ).returncode == 3
    assert Path(environ["FAKE_LOG"]).read_text().splitlines()[-1] == "salloc has them back"
