"""`distrun launch --on kubernetes` as a user types it, from the submission to the exit code."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SCENARIOS, only_run, wait_until
from tests.process.kubernetes_jobs import decided, ended, pod, running
from tests.process.kubernetes_server import ApiServer, Log
from tests.process.launched import Launched

pytestmark = pytest.mark.timeout(180)
FAULTS = SCENARIOS / "faults.py"
JOBS, PODS = "/apis/batch/v1/namespaces/ml/jobs", "/api/v1/namespaces/ml/pods"


def submitted(kube: ApiServer, launched: Callable[..., Launched]) -> tuple[Launched, str]:
    """Launch two nodes; return when the job is there, with its name."""
    words = ("--on", "kubernetes", "--kubeconfig", kube.kubeconfig(), "--image", "img:1")
    run = launched(*words, "--nodes", 2, "--nproc-per-node", 1, FAULTS, "exit_3")
    wait_until(lambda: kube.names("jobs"), 30, "the job")
    return run, kube.names("jobs")[0]


def start(kube: ApiServer, name: str) -> Log:
    """Start both pods of the job as Kubernetes would; return the log of the first."""
    template = kube.object(f"{JOBS}/{name}")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert "--json" in container["args"]
    for index in (0, 1):
        made: dict[str, Any] = pod(index, running())
        made["metadata"]["name"] = f"{name}-{index}-x"
        made["metadata"]["labels"]["batch.kubernetes.io/job-name"] = name
        kube.logs[f"{name}-{index}-x"] = Log()
        kube.add(PODS, made)
    return kube.logs[f"{name}-0-x"]


def test_a_launch_ends_with_the_exit_code_of_the_pods_and_leaves_a_whole_record(
    kube: ApiServer, launched: Callable[..., Launched], distrun: Any, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    words = ("launch", "--json", "--nodes", 2, "--nproc-per-node", 1, FAULTS, "exit_3")
    lines = distrun(*words, cwd=there, timeout_s=90).stdout.splitlines()
    run, name = submitted(kube, launched)
    log = start(kube, name)
    log.cuts = [500, 2_000]
    for line in lines:
        log.add(line)
    log.closed = True
    for index in (0, 1):
        kube.change(f"{PODS}/{name}-{index}-x", {"status": ended(3)})
    kube.change(f"{JOBS}/{name}", decided("Failed", "PodFailurePolicy"))
    code, said = run.end(60)
    assert code == 3
    assert f"submitted as job {name}" in said
    assert "failed first: exited with 3" in said
    record = json.loads((only_run(tmp_path) / "run.json").read_text())
    assert (record["outcome"], record["exit_code"]) == ("failed", 3)
    for secret in kube.object("/api/v1/namespaces/ml/secrets")["items"]:
        assert secret["metadata"]["ownerReferences"][0]["name"] == name


def test_a_signal_ends_the_job_and_the_launch_says_so(
    kube: ApiServer, launched: Callable[..., Launched]
) -> None:
    run, name = submitted(kube, launched)
    start(kube, name)
    run.wait_for_words("2 of 2 pods are started")
    run.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not kube.names("jobs"), 30, "the end of the job")
    kube.logs.clear()
    for index in (0, 1):
        kube.delete(f"{PODS}/{name}-{index}-x")
    code, said = run.end(60)
    assert code == 143
    assert "cancelled" in said or "deleted" in said


def test_a_refusal_is_an_error_of_the_launch_and_nothing_is_left(
    kube: ApiServer, distrun: Any, tmp_path: Path
) -> None:
    kube.fail(f"^POST {JOBS}", status=403, message="User cannot create jobs")
    words = ("--on", "kubernetes", "--kubeconfig", kube.kubeconfig(), "--image", "img:1")
    refused = distrun("launch", *words, FAULTS, "exit_3")
    assert refused.returncode == 3
    assert "does not let you create Job" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list((tmp_path / "runs").glob("*"))
    assert not kube.names("secrets") + kube.names("services")
