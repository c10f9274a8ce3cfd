"""Objects are created on a Kubernetes server, all or none; each refusal has its sentence."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from distrun.api import kubernetes_jobs, runs
from distrun.errors import DistrunError, MachineError
from distrun.schedulers.kube_access import Access
from tests.process.kubernetes_jobs import JOB, NAME, RUN_ID, a_record, objects
from tests.process.kubernetes_server import ApiServer

pytestmark = pytest.mark.timeout(60)
JOBS = r"^POST /apis/batch/v1/namespaces/ml/jobs"


def submit(tmp_path: Path, access: Access, found: list[dict[str, Any]] | None = None) -> Any:
    return kubernetes_jobs.submit(found or objects(), access, tmp_path / "runs", a_record())


def refused(tmp_path: Path, access: Access) -> DistrunError:
    """Submit in vain, and return why; nothing is left here."""
    with pytest.raises(DistrunError) as error:
        submit(tmp_path, access)
    assert not list((tmp_path / "runs").glob("*"))
    assert "\n" not in error.value.message
    assert error.value.hint
    return error.value


def test_what_belongs_to_a_job_goes_with_it(kube: ApiServer, tmp_path: Path) -> None:
    claim = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "later"}}
    found = [*objects(), claim]
    run, record = submit(tmp_path, Access(kubeconfig=str(kube.kubeconfig())), found)
    uid = kube.object(JOB)["metadata"]["uid"]
    for path in (f"secrets/{NAME}", f"services/{NAME}", "configmaps/later"):
        (owner,) = kube.object(f"/api/v1/namespaces/ml/{path}")["metadata"]["ownerReferences"]
        assert owner == {"apiVersion": "batch/v1", "kind": "Job", "name": NAME, "uid": uid}
    posts = [line.rpartition("/")[2] for line in kube.asked if line.startswith("POST")]
    assert posts == ["secrets", "services", "jobs", "configmaps"]
    assert record.job == {
        "on": "kubernetes",
        "kind": "job",
        "name": NAME,
        "context": "test",
        "namespace": "ml",
        "kubeconfig": str(tmp_path / "kubeconfig"),
    }
    assert runs.find(tmp_path / "runs", RUN_ID)[1] == record
    assert record.state == "submitted"
    assert run.run_id == RUN_ID


@pytest.mark.parametrize(
    ("status", "reason", "message", "expected", "code"),
    [
        (401, "Unauthorized", "Unauthorized", "does not accept the credentials", 3),
        (403, "Forbidden", "User cannot create jobs", "does not let you create Job", 3),
        (403, "Forbidden", "exceeded quota: gpus", "exceeded quota: gpus", 3),
        (404, "NotFound", 'namespaces "ml" not found', "namespace 'ml' is not there", 2),
        (409, "AlreadyExists", "already exists", f"Job {NAME} in namespace 'ml' exists", 2),
        (422, "Invalid", "spec.template: Required", "spec.template: Required", 2),
        (500, "InternalError", "etcd is unwell", "etcd is unwell", 3),
    ],
)
def test_if_the_job_is_refused_what_was_created_before_is_deleted(
    kube: ApiServer,
    tmp_path: Path,
    status: int,
    reason: str,
    message: str,
    expected: str,
    code: int,
) -> None:
    kube.fail(JOBS, status=status, reason=reason, message=message, times=9)
    error = refused(tmp_path, Access(kubeconfig=str(kube.kubeconfig())))
    assert expected in error.message
    assert error.exit_code == code
    assert "secret-token" not in error.message + error.hint
    assert not kube.names("secrets") + kube.names("services") + kube.names("jobs")


def test_what_was_there_before_is_not_deleted(kube: ApiServer, tmp_path: Path) -> None:
    kube.add("/apis/batch/v1/namespaces/ml/jobs", objects()[2])
    refused(tmp_path, Access(kubeconfig=str(kube.kubeconfig())))
    assert kube.names("jobs") == [NAME]
    assert not kube.names("secrets")


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(
    kube: ApiServer, tmp_path: Path, status: int
) -> None:
    kube.fail(JOBS, status=status, times=2, headers={"Retry-After": "0"})
    submit(tmp_path, Access(kubeconfig=str(kube.kubeconfig())))
    assert kube.names("jobs") == [NAME]
    assert sum(line.startswith("POST /apis/batch") for line in kube.asked) == 3


def test_an_answer_that_is_lost_creates_nothing_twice(kube: ApiServer, tmp_path: Path) -> None:
    kube.fail(JOBS, cut=True)
    _, record = submit(tmp_path, Access(kubeconfig=str(kube.kubeconfig())))
    assert record.job["name"] == NAME
    assert kube.names("jobs") == [NAME]
    assert kube.object(f"/api/v1/namespaces/ml/secrets/{NAME}")["metadata"]["ownerReferences"]


def test_a_kind_whose_controller_is_not_installed_is_named(kube: ApiServer, tmp_path: Path) -> None:
    kube.fail("jobsets", status=404, body=b"404 page not found\n", times=2)
    found = objects()
    found[2] = {**found[2], "apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet"}
    with pytest.raises(MachineError, match="does not know JobSet") as error:
        submit(tmp_path, Access(kubeconfig=str(kube.kubeconfig())), found)
    assert "--kind job" in error.value.hint
    assert error.value.exit_code == 2


def test_a_namespace_is_what_the_flag_says_then_the_context(
    kube: ApiServer, tmp_path: Path
) -> None:
    access = Access(kubeconfig=str(kube.kubeconfig()), namespace="else", context="other")
    _, record = submit(tmp_path, access)
    assert (record.job["namespace"], record.job["context"]) == ("else", "other")
    assert "POST /apis/batch/v1/namespaces/else/jobs" in kube.asked


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path, Access(kubeconfig=str(tmp_path / "none")))
    assert f"--kubeconfig '{tmp_path}/none' is not there" in error.message
    assert error.exit_code == 2


@pytest.mark.parametrize(
    "text", ["", "- a\n- b", "{", "contexts: 7", "\x00", "current-context: x", "contexts: [{}]"]
)
def test_a_kubeconfig_that_is_none_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    error = refused(tmp_path, Access(kubeconfig=str(path)))
    assert f"kubeconfig {path} cannot be used" in error.message
    assert error.exit_code == 2


def test_a_context_that_is_not_there_is_named_with_those_that_are(
    kube: ApiServer, tmp_path: Path
) -> None:
    error = refused(tmp_path, Access(kubeconfig=str(kube.kubeconfig()), context="othr"))
    assert "--context 'othr' is not in" in error.message
    assert error.hint == "did you mean 'other'?"
    assert error.exit_code == 2


def test_a_server_that_is_not_there_is_named(
    kube: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_jobs, "_SUBMIT_S", 1.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        error = refused(tmp_path, Access(kubeconfig=str(kube.kubeconfig(server=url))))
    assert f"{url} is not to be reached" in error.message
    assert error.exit_code == 3


def test_a_server_that_does_not_speak_tls_is_told_apart(
    kube: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_jobs, "_SUBMIT_S", 1.0)
    url = kube.url.replace("http:", "https:")
    error = refused(tmp_path, Access(kubeconfig=str(kube.kubeconfig(server=url))))
    assert "cannot be trusted" in error.message
    assert isinstance(error, MachineError)


def test_what_is_no_kubernetes_server_is_told_apart(kube: ApiServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        thread = threading.Thread(target=_greets, args=(other,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        error = refused(tmp_path, Access(kubeconfig=str(kube.kubeconfig(server=url))))
    assert url in error.message
    assert error.exit_code == 3


def _greets(listening: socket.socket) -> None:
    while True:
        try:
            with listening.accept()[0] as talk:
                talk.recv(4096)
                talk.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html")
        except OSError:
            return
