"""Which pod is the head, why pods wait, how a job ended: from plain objects."""

from __future__ import annotations

from typing import Any

import pytest

from distrun.schedulers import pod_states

GROUP, GROUP_INDEX = "jobset.sigs.k8s.io/replicatedjob-name", "jobset.sigs.k8s.io/job-index"


def pod(name: str, index: int, **more: Any) -> dict[str, Any]:
    labels = {pod_states.INDEX: str(index), **more.pop("labels", {})}
    meta = {"name": name, "labels": labels, "creationTimestamp": "2026-11-29T13:00:00Z", **more}
    return {"metadata": meta, "spec": {"containers": [{"name": "distrun"}]}, "status": {}}


def test_the_head_is_the_pod_with_index_0() -> None:
    pods = [pod("b", 1), pod("a", 0), pod("c", 2)]
    head = pod_states.head_of(pods)
    assert head is pods[1]
    assert pod_states.head_of(pods[:1]) is None


def test_of_a_pod_that_was_replaced_the_newest_is_the_head() -> None:
    old, new = pod("a", 0), pod("b", 0, creationTimestamp="2026-11-29T13:05:00Z")
    going = pod("c", 0, creationTimestamp="2026-11-29T13:09:00Z", deletionTimestamp="now")
    assert pod_states.head_of([new, old, going]) is new
    assert pod_states.current([new, old, pod("d", 1)]) == [new, pod("d", 1)]


def test_the_index_may_be_an_annotation() -> None:
    found = pod("a", 0)
    found["metadata"]["annotations"] = found["metadata"].pop("labels")
    assert pod_states.head_of([found]) is found


def test_of_a_jobset_the_head_is_in_the_first_job_of_the_group_that_trains() -> None:
    def of(name: str, group: str, job: int, index: int) -> dict[str, Any]:
        return pod(name, index, labels={GROUP: group, GROUP_INDEX: str(job)})

    trains = of("t", "node", 0, 0)
    pods = [of("init", "dataset-initializer", 0, 0), of("s", "node", 1, 0), trains]
    assert pod_states.head_of(pods) is trains
    assert pod_states.head_of([pods[0]]) is pods[0]


def test_a_jobset_says_how_often_it_was_restarted() -> None:
    again = pod("a", 0, labels={"jobset.sigs.k8s.io/restart-attempt": "2"})
    assert pod_states.attempts_before(again) == 2
    assert pod_states.attempts_before(pod("a", 0)) == 0


def test_a_sidecar_is_not_the_launch() -> None:
    found = pod("a", 0)
    found["spec"]["containers"] = [{"name": "istio"}, {"name": "distrun"}]
    assert pod_states.container_of(found) == "distrun"
    found["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "istio"}
    assert pod_states.container_of(found) == "istio"
    assert pod_states.container_of({"metadata": {}, "spec": {"containers": []}}) == ""


@pytest.mark.parametrize("kind", ["Complete", "Completed", "SuccessCriteriaMet"])
def test_a_job_that_has_succeeded_is_decided(kind: str) -> None:
    job = {"status": {"conditions": [{"type": kind, "status": "True"}]}}
    assert pod_states.decision(job) == (True, "", "")


def test_a_job_without_a_decision_goes_on() -> None:
    for conditions in ([], None, [{"type": "Failed", "status": "False"}]):
        assert pod_states.decision({"status": {"conditions": conditions}}) is None
    assert pod_states.decision({}) is None


def test_a_suspended_job_waits_for_its_queue() -> None:
    state, message = pod_states.news_of("j", {"spec": {"suspend": True}}, [])
    assert state == "Suspended"
    assert "it waits for its turn in a queue" in message


def test_the_reason_that_helps_is_told_before_the_one_that_does_not() -> None:
    pods = [pod("a", 0), pod("b", 1)]
    for each, reason in zip(pods, ("ContainerCreating", "ErrImagePull"), strict=True):
        state = {"waiting": {"reason": reason, "message": "denied" * (reason[0] == "E")}}
        each["status"] = {
            "phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [{"name": "distrun", "state": state}],
        }
    state, message = pod_states.news_of("j", {}, pods)
    assert (state, message) == (
        "ErrImagePull",
        "job j: 1 of 2 pods are waiting: ErrImagePull: denied",
    )
    _, message = pod_states.news_of("j", {}, pods[:1], "FailedMount: secret not found")
    assert message == "job j: its pod is waiting: ContainerCreating: FailedMount: secret not found"
