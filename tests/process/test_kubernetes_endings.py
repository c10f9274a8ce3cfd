"""What Kubernetes says of a job that waits, and of one whose head has told no end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distrun.api import kubernetes_jobs, runs
from distrun.runs.directory import RunDirectory
from distrun.schedulers import kube_streams
from distrun.schedulers.kube_access import Access
from tests.process.kubernetes_jobs import (
    JOB,
    NAME,
    PODS,
    Cluster,
    Follower,
    a_record,
    a_run,
    ended,
    lines_of,
    log_of,
    objects,
    pod,
    running,
    waits,
)
from tests.process.kubernetes_server import ApiServer

pytestmark = pytest.mark.timeout(60)
EVENTS = "/api/v1/namespaces/ml/events"


def said(words: str) -> Any:
    return lambda events: any(words in event.get("message", "") for event in events)


def test_why_a_job_waits_is_told_once_for_each_reason(
    kube: ApiServer, kube_run: RunDirectory
) -> None:
    cluster, follower = Cluster(kube), Follower(kube_run)
    follower.until(said("Kubernetes has made no pod yet"))
    no_room = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }
    for index in (0, 1):
        kube.add(PODS, pod(index, {"phase": "Pending", "conditions": [no_room]}))
    follower.until(said("2 of 2 pods are waiting: Unschedulable: 0/3 nodes are available"))
    for index in (0, 1):
        cluster.set(index, waits("ErrImagePull", "manifest for img:1 not found"))
    follower.until(said("ErrImagePull: manifest for img:1 not found"))
    for reason in ("ImagePullBackOff", "ErrImagePull"):
        cluster.set(0, waits(reason, "manifest for img:1 not found"))
    follower.until(said("ImagePullBackOff"))
    for name in (f"{NAME}-0-x", f"{NAME}-1-x"):
        kube.delete(f"{PODS}/{name}")
    log = cluster.start(again="2")
    for line in lines_of(*a_run()):
        log.add(line)
    cluster.end(0, again="2")
    follower.to_end()
    words = follower.words()
    assert len(words) == len(set(words))


def test_a_quota_that_keeps_pods_away_is_told_from_the_events(
    kube: ApiServer, kube_run: RunDirectory
) -> None:
    kube.add(
        EVENTS,
        {
            "metadata": {"name": "e1"},
            "type": "Warning",
            "reason": "FailedCreate",
            "message": "exceeded quota: gpus",
            "involvedObject": {"name": NAME},
            "lastTimestamp": "2026-11-29T13:00:00Z",
        },
    )
    Follower(kube_run).until(said("has made no pod yet: FailedCreate: exceeded quota: gpus"))


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "CreateContainerConfigError"])
def test_an_image_that_does_not_come_ends_the_run_and_gives_its_place_back(
    kube: ApiServer, tmp_path: Path, reason: str
) -> None:
    record = a_record(plan={"join_timeout_s": 0.5})
    access = Access(kubeconfig=str(kube.kubeconfig()))
    run, _ = kubernetes_jobs.submit(objects(), access, tmp_path / "runs", record)
    kube.add(PODS, pod(0, waits(reason, "no such image")))
    last = Follower(run).to_end()
    assert (last["outcome"], last["exit_code"]) == ("not started", 3)
    assert f"{reason}: no such image" in last["summary"]
    assert not kube.names("jobs")


_CONDITION = {"type": "DisruptionTarget", "status": "True"}


@pytest.mark.parametrize(
    ("status", "decision", "outcome", "code"),
    [
        (ended(137, "OOMKilled"), {}, "out of memory", 137),
        ({"phase": "Failed", "reason": "Evicted"}, {}, "preempted", 143),
        (
            ended(143, conditions=[{**_CONDITION, "reason": "EvictionByEvictionAPI"}]),
            {},
            "preempted",
            143,
        ),
        (
            ended(137, conditions=[{**_CONDITION, "reason": "DeletionByTaintManager"}]),
            {},
            "node lost",
            5,
        ),
        (ended(143), {"reason": "DeadlineExceeded"}, "time limit", 124),
        (ended(42), {}, "failed", 42),
        (ended(0, "Completed"), {}, "supervisor lost", 70),
        (ended(128, "StartError"), {}, "not started", 3),
    ],
)
def test_an_end_without_a_word_of_the_head_is_what_kubernetes_says(
    kube: ApiServer,
    kube_run: RunDirectory,
    status: dict[str, Any],
    decision: dict[str, str],
    outcome: str,
    code: int,
) -> None:
    cluster, follower = Cluster(kube), Follower(kube_run)
    log = cluster.start()
    for line in lines_of(*a_run()[:-1]):
        log.add(line)
    follower.until(lambda events: any(e["event"] == "world_started" for e in events))
    log.closed = True
    cluster.set(0, status)
    kind = "Failed" if code != 70 else "Complete"
    condition = {"type": kind, "status": "True", **decision}
    kube.change(JOB, {"status": {"conditions": [condition]}})
    last = follower.to_end()
    assert (last["outcome"], last["exit_code"]) == (outcome, code)
    record = runs.find(kube_run.path.parent, kube_run.run_id)[1]
    assert (record.outcome, record.exit_code, record.state) == (outcome, code, "ended")
    assert log_of(kube_run.path, 0) == "line 0\nline 2\n"


def test_a_pod_that_was_killed_for_its_memory_is_named_while_the_run_goes_on(
    kube: ApiServer, kube_run: RunDirectory
) -> None:
    cluster, follower = Cluster(kube), Follower(kube_run)
    cluster.start()
    cluster.set(1, ended(137, "OOMKilled"))
    follower.until(said(f"pod {NAME}-1-x was killed: it used more memory than its limit"))
    cluster.end(137, again="")


def test_a_job_that_nobody_knows_any_more_is_lost(kube: ApiServer, kube_run: RunDirectory) -> None:
    kube.delete(JOB)
    last = Follower(kube_run).to_end()
    assert (last["outcome"], last["exit_code"]) == ("job lost", 5)


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
@pytest.mark.parametrize("what", ["jobs", "pods"])
def test_a_server_that_refuses_for_a_while_ends_nothing(
    kube: ApiServer, kube_run: RunDirectory, what: str, status: int
) -> None:
    kube.fail(rf"GET .*/{what}\?", status=status, times=3, message="not now")
    cluster, follower = Cluster(kube), Follower(kube_run)
    follower.until(said("asking again"))
    log = cluster.start()
    for line in lines_of(*a_run()):
        log.add(line)
    cluster.end(0)
    assert follower.to_end()["exit_code"] == 0
    follower.until(said("answers again"))


@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_log_that_is_refused_for_a_while_is_read_when_it_is_there(
    kube: ApiServer, kube_run: RunDirectory, status: int
) -> None:
    kube.fail(r"GET .*/log\?", status=status, times=2, message="ContainerCreating")
    cluster, follower = Cluster(kube), Follower(kube_run)
    log = cluster.start()
    for line in lines_of(*a_run()):
        log.add(line)
    cluster.end(0)
    assert follower.to_end()["exit_code"] == 0
    assert log_of(kube_run.path, 1) == "line 1\n"


_EXPIRED = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}\n'


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 410, "reason": "Expired"},
        {"status": 200, "body": _EXPIRED},
        {"status": 200, "body": b""},
        {"status": 200, "body": b"<html>no JSON</html>\n"},
        {"cut": True},
    ],
)
def test_a_watch_that_ends_expires_or_is_cut_misses_nothing(
    kube: ApiServer, kube_run: RunDirectory, wrong: dict[str, Any]
) -> None:
    kube.fail(r"GET .*/pods\?.*watch=true", times=3, **wrong)
    kube.fail(r"GET .*/jobs\?.*watch=true", times=3, **wrong)
    cluster, follower = Cluster(kube), Follower(kube_run)
    log = cluster.start()
    for line in lines_of(*a_run(code=7)):
        log.add(line)
    cluster.end(7)
    assert follower.to_end()["exit_code"] == 7


def test_a_connection_that_is_silent_is_opened_again(
    kube: ApiServer, kube_run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_streams, "_SILENT_S", 0.5)
    cluster, follower = Cluster(kube), Follower(kube_run)
    log = cluster.start()
    lines = lines_of(*a_run())
    for line in lines[:4]:
        log.add(line)
    follower.until(lambda _: len(log.asked) > 2)
    for line in lines[4:]:
        log.add(line)
    cluster.end(0)
    assert follower.to_end()["exit_code"] == 0
    assert log_of(kube_run.path, 0) == "line 0\nline 2\n"


def test_a_stop_asks_the_pods_first_and_kills_them_when_the_time_is_over(
    kube: ApiServer, kube_run: RunDirectory
) -> None:
    cluster = Cluster(kube)
    log = cluster.start()
    lines = lines_of(*a_run(code=143))
    kube.change(JOB, {"metadata": {"finalizers": ["foregroundDeletion"]}})
    for line in lines[:4]:
        log.add(line)
    follower = Follower(kube_run)
    follower.until(lambda events: any(e["event"] == "world_started" for e in events))
    stopper = runs.stopper(kube_run, runs.find(kube_run.path.parent, kube_run.run_id)[1])
    stopper.begin()
    assert kube.object(JOB)["metadata"]["deletionTimestamp"]
    assert len(kube.names("pods")) == 2
    stopper.tick()
    assert not stopper.cancelled
    for line in lines[4:]:
        log.add(line)
    log.closed = True
    cluster.set(0, ended(143))
    stopper.cancel()
    assert not kube.names("pods")
    kube.change(JOB, {"metadata": {"finalizers": []}})
    last = follower.to_end()
    assert (last["outcome"], last["exit_code"]) == ("failed", 143)


def test_a_run_that_runs_is_pending_or_running_in_a_list(
    kube: ApiServer, kube_run: RunDirectory
) -> None:
    record = runs.find(kube_run.path.parent, kube_run.run_id)[1]
    told: list[str] = []
    assert runs.Jobs(told.append).state_of(kube_run, record)[1] == "pending (NoPods)"
    kube.add(PODS, pod(0, waits("ImagePullBackOff")))
    assert runs.Jobs(told.append).state_of(kube_run, record)[1] == "pending (ImagePullBackOff)"
    kube.logs[f"{NAME}-0-x"] = log = type(Cluster(kube).start(again="2"))()
    for line in lines_of(*a_run()[:-1]):
        log.add(line)
    kube.delete(f"{PODS}/{NAME}-0-x2")
    Cluster(kube).set(0, running())
    assert runs.Jobs(told.append).state_of(kube_run, record)[1] == "running"
    assert log_of(kube_run.path, 0) == "line 0\nline 2\n"
    assert not told
