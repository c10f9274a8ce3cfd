"""The objects of a run: recorded texts, what follows from what, and what is secret."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from distrun.errors import ExitCode, UsageError
from distrun.schedulers.kubernetes import text as text_module
from distrun.schedulers.kubernetes.manifest import Manifest, ScriptFile
from distrun.schedulers.kubernetes.pod import grace_period_s, literal, shm_nbytes
from distrun.schedulers.kubernetes.text import text
from distrun.schedulers.kubernetes.workloads import MAX_CONFIGMAP_NBYTES, objects
from distrun.spec.kubernetes_values import Volume
from tests.unit.schedulers.manifests import GOLDEN, JOB, MANIFESTS, SECRET

GIB = 1 << 30


@pytest.fixture(autouse=True)
def version_of_the_golden_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module.distrun, "__version__", "0.0.0")


def job_of(manifest: Manifest) -> dict[str, Any]:
    return objects(manifest)[-1]


def pod_of(manifest: Manifest) -> dict[str, Any]:
    """Return the pod's spec of a Job."""
    pod: dict[str, Any] = job_of(manifest)["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("case", MANIFESTS)
def test_the_text_is_the_recorded_one(case: str) -> None:
    assert text(MANIFESTS[case]) == (GOLDEN / f"{case}.yaml").read_text(encoding="utf-8")


def test_every_recorded_text_has_its_case() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(MANIFESTS)


@pytest.mark.parametrize("case", MANIFESTS)
def test_the_text_holds_the_objects_but_for_the_secret(case: str) -> None:
    manifest = MANIFESTS[case]
    read = [each for each in yaml.safe_load_all(text(manifest)) if each]
    assert read == [each for each in objects(manifest) if each["kind"] != "Secret"]


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_secret_value_is_in_the_secret_alone(case: str) -> None:
    manifest = MANIFESTS[case]
    assert SECRET not in text(manifest) and SECRET not in repr(manifest)
    for each in objects(manifest):
        if each["kind"] == "Secret":
            assert each["stringData"] == dict(manifest.secrets)
        else:
            assert SECRET not in str(each)


@pytest.mark.parametrize("case", MANIFESTS)
def test_objects_share_a_name_and_a_namespace_and_the_job_comes_last(case: str) -> None:
    manifest = MANIFESTS[case]
    made = objects(manifest)
    assert {each["metadata"]["name"] for each in made} == {manifest.name}
    assert {each["metadata"].get("namespace", "") for each in made} == {manifest.namespace}
    assert made[-1]["kind"].lower() == manifest.kind


def test_the_codes_that_come_back_are_those_of_lost_nodes_alone() -> None:
    disrupted, failed = job_of(JOB)["spec"]["podFailurePolicy"]["rules"]
    assert disrupted["action"] == "Ignore" and failed["action"] == "FailJob"
    back = set(failed["onExitCodes"]["values"])
    assert failed["onExitCodes"]["operator"] == "NotIn"
    assert back == {ExitCode.JOIN_TIMEOUT, ExitCode.NODE_LOST, ExitCode.TERMINATED}
    assert not back & {1, ExitCode.USAGE, ExitCode.MACHINE, ExitCode.TIME_LIMIT, 137}


def test_a_lost_node_ends_the_pods_of_all_and_all_may_come_back() -> None:
    assert job_of(replace(JOB, nodes=8, retries=2))["spec"]["backoffLimit"] == 16
    assert job_of(replace(JOB, retries=0))["spec"]["backoffLimit"] == 0


def test_in_a_jobset_all_pods_start_again_together_unless_a_rank_has_failed() -> None:
    spec = job_of(replace(JOB, kind="jobset", retries=2))["spec"]
    assert spec["failurePolicy"]["maxRestarts"] == 2
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    inner = spec["replicatedJobs"][0]["template"]["spec"]
    assert inner["backoffLimit"] == 0
    assert inner["podFailurePolicy"]["rules"][0]["action"] == "Count"


def test_the_launcher_has_time_after_the_grace_of_the_ranks() -> None:
    assert grace_period_s(replace(JOB, grace_s=0)) >= 10
    assert grace_period_s(replace(JOB, grace_s=90.5)) >= 100
    assert pod_of(JOB)["terminationGracePeriodSeconds"] == grace_period_s(JOB)


def test_a_pod_outlives_the_time_limit_that_the_launcher_keeps() -> None:
    assert "activeDeadlineSeconds" not in pod_of(JOB)
    limited = replace(JOB, time_limit_s=100, join_timeout_s=50)
    assert pod_of(limited)["activeDeadlineSeconds"] > 150 + grace_period_s(limited)


@pytest.mark.parametrize(
    ("fields", "nbytes"),
    [
        ({"ranks": 4}, 5 * GIB),
        ({"gpus": 2}, 3 * GIB),
        ({}, 9 * GIB),
        ({"ranks": 4, "resources": {"memory": "4Gi"}}, 2 * GIB),
        ({"ranks": 1, "resources": {"memory": "64Gi"}}, 2 * GIB),
    ],
)
def test_shared_memory_grows_with_the_ranks_up_to_half_of_the_memory(
    fields: dict[str, Any], nbytes: int
) -> None:
    manifest = replace(JOB, **fields)
    assert shm_nbytes(manifest) == nbytes
    shm = pod_of(manifest)["volumes"][0]["emptyDir"]
    assert shm == {"medium": "Memory", "sizeLimit": f"{nbytes // GIB}Gi"}


def test_gpus_are_limits_unless_a_resource_says_another_number() -> None:
    asked = replace(JOB, gpus=4, resources={"cpu": "2"})
    (container,) = pod_of(asked)["containers"]
    assert container["resources"]["limits"] == {"cpu": "2", "nvidia.com/gpu": "4"}
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert "resources" not in pod_of(JOB)["containers"][0]
    (container,) = pod_of(replace(asked, resources={"nvidia.com/gpu": "8"}))["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}


@pytest.mark.parametrize("case", MANIFESTS)
def test_no_pod_is_root_or_gains_rights_or_writes_to_its_image(case: str) -> None:
    pod = _pod_of_any(job_of(MANIFESTS[case]))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert {each["name"] for each in pod["volumes"]} == set(mounts)
    assert mounts["tmp"] == "/tmp" and mounts["shm"] == "/dev/shm"


def _pod_of_any(job: dict[str, Any]) -> dict[str, Any]:
    spec = job["spec"]
    if job["kind"] == "TrainJob":
        (patch,) = spec["runtimePatches"]
        spec = patch["trainingRuntimeSpec"]["template"]["spec"]
    if "replicatedJobs" in spec:
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    pod: dict[str, Any] = spec["template"]["spec"]
    return pod


def test_runs_are_on_the_first_volume_that_can_be_written() -> None:
    assert JOB.runs_dir == "/runs"
    read_only, other = Volume("a", "/a", True), Volume("b", "/b")
    assert replace(JOB, volumes=(read_only, other)).runs_dir == "/b/runs"
    assert replace(JOB, volumes=(read_only,)).runs_dir == "/runs"


def test_the_service_finds_the_pods_before_they_are_ready() -> None:
    service = next(each for each in objects(JOB) if each["kind"] == "Service")
    labels = job_of(JOB)["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert pod_of(JOB)["subdomain"] == service["metadata"]["name"]


@pytest.mark.parametrize(
    ("kind", "head"), [("job", "train-0.train"), ("jobset", "train-node-0-0.train")]
)
def test_the_head_is_named_as_its_pod_is(kind: str, head: str) -> None:
    variables = {
        each["name"]: each.get("value")
        for each in _pod_of_any(job_of(replace(JOB, kind=kind)))["containers"][0]["env"]
    }
    assert variables["MASTER_ADDR"] == head


def test_the_controller_of_a_trainjob_names_the_head() -> None:
    trainer = job_of(replace(JOB, kind="trainjob"))["spec"]["trainer"]
    assert "MASTER_ADDR" not in {each["name"] for each in trainer["env"]}
    assert trainer["numNodes"] == 2


def test_a_script_of_the_limit_fits_and_one_byte_more_does_not() -> None:
    fits = replace(JOB, script=ScriptFile("a.py", b"#" * MAX_CONFIGMAP_NBYTES))
    assert objects(fits)[0]["kind"] == "ConfigMap"
    above = replace(JOB, script=ScriptFile("a.py", b"#" * (MAX_CONFIGMAP_NBYTES + 1)))
    with pytest.raises(UsageError, match=r"'a\.py' has 1048577 bytes; the limit"):
        objects(above)


def expanded(text: str, variables: dict[str, str]) -> str:
    """Expand as the kubelet does: `$(NAME)` is a variable if it is known, `$$` is `$`."""
    found, at = "", 0
    while at < len(text):
        rest = text[at:]
        if rest.startswith("$$"):
            found, at = found + "$", at + 2
        elif rest.startswith("$(") and ")" in rest:
            name = rest[2 : rest.index(")")]
            found += variables.get(name, f"$({name})")
            at += len(name) + 3
        else:
            found, at = found + rest[0], at + 1
    return found


@settings(max_examples=200)
@given(st.text("$()Ax ", max_size=12))
def test_every_word_reaches_the_container_as_it_is(word: str) -> None:
    assert expanded(literal(word), {"A": "replaced", "": "nothing"}) == word
