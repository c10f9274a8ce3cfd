"""Patches: what kubectl's strategic merge does, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distrun.errors import UsageError
from distrun.schedulers.kubernetes.workloads import objects
from tests.unit.schedulers.manifests import EVERYTHING, JOB, MANIFESTS


def patched(*patches: dict[str, Any], kind: str = "job") -> dict[str, Any]:
    return objects(replace(JOB, kind=kind, patches=patches))[-1]


def in_pod(fields: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": fields}}}


def pod(*patches: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = patched(*patches)["spec"]["template"]["spec"]
    return found


BEFORE = pod()


def test_a_patch_adds_and_changes_and_leaves_the_rest() -> None:
    now = pod(in_pod({"priorityClassName": "high", "restartPolicy": "OnFailure"}))
    assert now == {**BEFORE, "priorityClassName": "high", "restartPolicy": "OnFailure"}


def test_a_null_deletes() -> None:
    now = pod(in_pod({"securityContext": {"runAsUser": None}}))
    assert "runAsUser" not in now["securityContext"]
    assert now["securityContext"]["runAsNonRoot"] is True


def test_an_entry_with_the_same_name_is_merged_and_another_one_added() -> None:
    sidecar = {"name": "sidecar", "image": "a"}
    now = pod(in_pod({"containers": [{"name": "distrun", "imagePullPolicy": "Always"}, sidecar]}))
    (own, other) = now["containers"]
    assert own == {**BEFORE["containers"][0], "imagePullPolicy": "Always"}
    assert other == sidecar


def test_mounts_are_known_by_their_paths_and_variables_by_their_names() -> None:
    container = {
        "name": "distrun",
        "env": [{"name": "HOME", "value": "/x"}, {"name": "NEW", "value": "1"}],
        "volumeMounts": [{"mountPath": "/tmp", "name": "shm"}],
    }
    (own,) = pod(in_pod({"containers": [container]}))["containers"]
    values = {each["name"]: each.get("value") for each in own["env"]}
    assert values["HOME"] == "/x" and values["NEW"] == "1" and values["USER"] == "distrun"
    assert [each["name"] for each in own["volumeMounts"]] == ["shm", "shm", "runs"]


def test_a_list_without_names_is_replaced() -> None:
    (own,) = pod(in_pod({"containers": [{"name": "distrun", "args": ["a"]}]}))["containers"]
    assert own["args"] == ["a"]


def test_an_entry_is_deleted_and_a_mapping_replaced() -> None:
    now = pod(in_pod({"volumes": [{"name": "runs", "$patch": "delete"}]}))
    assert [each["name"] for each in now["volumes"]] == ["shm", "tmp"]
    now = pod(in_pod({"securityContext": {"$patch": "replace", "runAsNonRoot": True}}))
    assert now["securityContext"] == {"runAsNonRoot": True}
    now = pod(in_pod({"volumes": [{"$patch": "replace"}, {"name": "a", "emptyDir": {}}]}))
    assert now["volumes"] == [{"name": "a", "emptyDir": {}}]


def test_patches_follow_one_another_and_change_no_other_rendering() -> None:
    one, two = in_pod({"priorityClassName": "a"}), in_pod({"priorityClassName": "b"})
    assert pod(one, two)["priorityClassName"] == "b"
    assert pod() == BEFORE


def test_a_patch_with_a_kind_is_for_that_object() -> None:
    ports = {"kind": "Service", "spec": {"ports": [{"port": 29500}]}}
    service = objects(replace(JOB, patches=(ports,)))[-2]
    assert service["spec"]["ports"] == [{"port": 29500}]
    assert service["spec"]["clusterIP"] == "None"


def test_the_jobs_of_a_jobset_are_known_by_their_names() -> None:
    job = {"name": "node", "template": {"spec": {"backoffLimit": 3}}}
    now = patched({"spec": {"replicatedJobs": [job]}}, kind="jobset")
    (own,) = now["spec"]["replicatedJobs"]
    assert own["template"]["spec"]["backoffLimit"] == 3
    assert own["template"]["spec"]["completions"] == 2


@pytest.mark.parametrize(
    ("patch", "said", "hint"),
    [
        ({"spek": {}}, "'spek' is no key of Job", "'spec'"),
        (in_pod({"container": []}), "'container' is no key of PodSpec in spec.template.spec",
         "'containers'"),
        (in_pod({"containers": [{"name": "distrun", "imagePullpolicy": "x"}]}),
         "'imagePullpolicy' is no key of Container", "'imagePullPolicy'"),
        ({"kind": "Ingress"}, "'Ingress', which this run has not", "Secret, Service, Job"),
        ({"metadata": {"name": "x"}}, "changes metadata.name of the Job from 'train' to 'x'",
         "--job-name"),
        ({"metadata": None}, "changes metadata.name of the Job", "--job-name"),
        ({"metadata": "x"}, "changes metadata.name of the Job", "--job-name"),
        ({"apiVersion": "batch/v2"}, "changes apiVersion", ""),
        (in_pod({"containers": [{"image": "x"}]}), "containers has no name", "merged into"),
        (in_pod({"containers": ["x"]}), "containers has no name", ""),
        ({"spec": {"$patch": "merge-all"}}, "$patch: 'merge-all' is not known at spec", ""),
        ({"$setElementOrder/x": []}, "$setElementOrder/x is not known at the top", ""),
    ],
)  # fmt: skip
def test_a_patch_that_does_not_fit_is_refused(patch: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        patched(patch)
    assert said in caught.value.message and hint in caught.value.hint


def test_only_the_identity_of_an_object_is_fixed() -> None:
    labels = {"metadata": {"labels": {"team": "a"}, "namespace": "lab"}}
    made = objects(replace(EVERYTHING, patches=(labels,)))[-1]
    assert made["metadata"]["labels"]["team"] == "a"
    assert MANIFESTS["everything"] is EVERYTHING
