"""`distrun launch --on kubernetes` creates what --dry-run prints, and follows it to its end."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import only_run, wait_until
from tests.process.kubernetes_jobs import JOB, NAME, Cluster, a_run, lines_of, log_of
from tests.process.kubernetes_server import ApiServer, api_server
from tests.process.launched import Launched

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.timeout(150)
LIMIT_S = 60.0
WORDS = (
    *("--on", "kubernetes", "--image", "distrun:1", "--nodes", "2", "--configmap"),
    *("--network-policy", "--env", "HF_TOKEN=hunter2", "--job-name", NAME),
)
MADE = {
    "configmaps": "/api/v1/namespaces/ml/configmaps/",
    "secrets": "/api/v1/namespaces/ml/secrets/",
    "networkpolicies": "/apis/networking.k8s.io/v1/namespaces/ml/networkpolicies/",
    "services": "/api/v1/namespaces/ml/services/",
    "jobs": "/apis/batch/v1/namespaces/ml/jobs/",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    (tmp_path / "train.py").write_text("print('hi')\n")
    (tmp_path / "server").mkdir()
    with api_server(tmp_path / "server") as started:
        yield started


def without_what_a_server_adds(found: dict[str, Any]) -> dict[str, Any]:
    meta = {k: v for k, v in found["metadata"].items() if k in ("name", "labels")}
    return {**{k: v for k, v in found.items() if k != "status"}, "metadata": meta}


def is_made(server: ApiServer) -> bool:
    return any(line.startswith("POST") and line.endswith("/jobs") for line in server.asked)


@pytest.mark.parametrize("code", [0, 7])
def test_the_printed_job_is_created_and_followed_to_its_code(
    server: ApiServer, launched: Callable[..., Launched], distrun: Run, tmp_path: Path, code: int
) -> None:
    printed = distrun("launch", *WORDS, "--dry-run", "train.py")
    config = server.kubeconfig()
    run = launched(*WORDS, "--kubeconfig", config, "train.py")
    wait_until(lambda: is_made(server) or run.process.poll() is not None, LIMIT_S)
    cluster = Cluster(server)
    for each in filter(None, yaml.safe_load_all(printed.stdout)):
        plural = next(p for p in MADE if each["kind"].lower()[:-1] in p)
        assert without_what_a_server_adds(server.object(MADE[plural] + NAME)) == each
    secret = server.object(MADE["secrets"] + NAME)["stringData"]
    assert secret["HF_TOKEN"] == "hunter2" and len(secret["DISTRUN_DIAL_KEY"]) >= 32
    log = cluster.start()
    *before, told = a_run(code)
    for line in lines_of(*before, {**told, "verdict": None}):
        log.add(line)
    cluster.end(code)
    out, errors = run.process.communicate(timeout=LIMIT_S)
    assert run.process.returncode == code, errors
    assert f"submitted as job {NAME}" in errors and "line 2" in out
    assert "hunter2" not in out + errors and secret["DISTRUN_DIAL_KEY"] not in out + errors
    assert "line 0" in log_of(only_run(tmp_path), 0)
    shown = distrun("show")
    assert shown.returncode == 0 and "train.py" in shown.stdout


def test_a_name_of_the_job_is_new_each_time(
    server: ApiServer, distrun: Run, tmp_path: Path
) -> None:
    words = ("--on", "kubernetes", "--image", "a", "--kubeconfig", server.kubeconfig(), "--detach")
    for _ in range(2):
        assert distrun("launch", *words, "train.py").returncode == 0
    names = server.names("jobs")
    assert len(set(names)) == 2
    assert all(re.fullmatch(r"train-[0-9a-f]{4}", name) for name in names)
    assert {path.name[-4:] for path in (tmp_path / "runs").iterdir()} == {n[-4:] for n in names}


def test_what_the_server_refuses_leaves_nothing(
    server: ApiServer, distrun: Run, tmp_path: Path
) -> None:
    server.fail("POST .*/jobs", status=403, reason="Forbidden", message="ada cannot create jobs")
    words = (*WORDS, "--kubeconfig", server.kubeconfig())
    done = distrun("launch", *words, "train.py")
    assert done.returncode in (2, 3) and "ada cannot create jobs" in done.stderr, done.stderr
    assert not list((tmp_path / "runs").glob("*"))
    assert server.names("secrets") == server.names("services") == server.names("jobs") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kubeconfig", "none"], "--kubeconfig 'none' is not there"),
        (["--context", "x"], "--context 'x' is not in"),
    ],
)
def test_a_server_that_is_not_named_is_an_error(
    server: ApiServer, distrun: Run, tmp_path: Path, words: list[str], said: str
) -> None:
    config = ["--kubeconfig", server.kubeconfig()] if "--context" in words else []
    done = distrun("launch", *WORDS, *config, *words, "train.py")
    assert done.returncode == 2 and said in done.stderr and "hint:" in done.stderr
    assert not list((tmp_path / "runs").glob("*")) and not is_made(server)


def test_the_job_belongs_to_the_run(server: ApiServer, distrun: Run, tmp_path: Path) -> None:
    words = (*WORDS, "--kubeconfig", server.kubeconfig(), "--detach")
    assert distrun("launch", *words, "train.py").returncode == 0
    job = server.object(JOB)
    for plural in ("configmaps", "secrets", "networkpolicies", "services"):
        (owner,) = server.object(MADE[plural] + NAME)["metadata"]["ownerReferences"]
        assert owner["uid"] == job["metadata"]["uid"]
    assert '"kind": "job"' in (only_run(tmp_path) / "run.json").read_text()
