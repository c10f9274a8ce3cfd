"""What is rendered fits the schemas, the CRDs' models and rules, and kubectl reads the text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distrun.schedulers.kubernetes.text import text
from distrun.schedulers.kubernetes.workloads import objects
from tests.unit.schedulers.kubectl import documents, kubectl, server
from tests.unit.schedulers.kubernetes_schemas import (
    VERSION,
    crd_schema,
    inner,
    rules,
    unknown_fields,
)
from tests.unit.schedulers.manifests import MANIFESTS

OF_CRDS = [case for case, each in MANIFESTS.items() if each.kind != "job"]


@pytest.mark.parametrize("case", MANIFESTS)
def test_every_object_fits_the_schema_of_kubernetes(case: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="it brings the schemas")
    for each in objects(MANIFESTS[case]):
        if each["kind"] in ("JobSet", "TrainJob"):
            continue
        assert validate.validate(each, VERSION, strict=True) == VERSION


def test_the_schema_refuses_what_is_wrong() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="it brings the schemas")
    job = objects(MANIFESTS["job"])[-1]
    job["spec"]["completionmode"] = "Indexed"
    with pytest.raises(validate.ValidationError):
        validate.validate(job, VERSION, strict=True)


@pytest.mark.parametrize("case", OF_CRDS)
def test_the_jobs_of_a_jobset_fit_the_schema_of_a_job(case: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="it brings the schemas")
    job_set = objects(MANIFESTS[case])[-1]
    for each in job_set["spec"].get("replicatedJobs", ()):
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
        assert validate.validate({**job, **each["template"]}, VERSION, strict=True)


@pytest.mark.parametrize("case", OF_CRDS)
def test_the_models_of_the_trainer_read_what_is_rendered(case: str) -> None:
    models = pytest.importorskip(
        "kubeflow_trainer_api.models", reason="it has models of TrainJob and JobSet"
    )
    made = objects(MANIFESTS[case])[-1]
    name = {
        "TrainJob": "TrainerV1alpha1TrainJob",
        "JobSet": "JobsetV1alpha2JobSet",
    }[made["kind"]]
    model = getattr(models, name).from_json(json.dumps(made))
    assert json.loads(model.to_json()) == made


@pytest.mark.parametrize("case", OF_CRDS)
def test_a_server_would_prune_nothing(case: str) -> None:
    made = objects(MANIFESTS[case])[-1]
    assert list(unknown_fields(crd_schema(made["kind"]), made)) == []


def holds(rule: str, value: Any) -> bool:
    """Evaluate a CEL rule as the API server does for `self`."""
    celpy = pytest.importorskip("celpy", reason="it evaluates the rules of CRDs")
    environment = celpy.Environment()
    program = environment.program(environment.compile(rule))
    return bool(program.evaluate({"self": celpy.json_to_cel(value)}))


@pytest.mark.parametrize("case", OF_CRDS)
def test_the_rules_of_the_crds_hold(case: str) -> None:
    made = objects(MANIFESTS[case])[-1]
    found = list(rules(crd_schema(made["kind"]), made))
    assert found
    for rule, value in found:
        assert holds(rule, value), rule


def test_a_rule_of_the_crds_refuses_a_bad_name() -> None:
    schema = crd_schema("TrainJob")
    bad = {"metadata": {"name": "1-not-dns"}, "spec": {"trainer": {"numProcPerNode": 0}}}
    broken = [rule for rule, value in rules(schema, bad) if not holds(rule, value)]
    assert len(broken) == 2
    assert inner(schema, "spec", "trainer")["properties"]


@pytest.mark.parametrize("case", MANIFESTS)
def test_kubectl_would_create_what_was_meant(case: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text(MANIFESTS[case]), encoding="utf-8")
    words = ("create", "--dry-run=client", "--validate=false", "-o", "json", "-f", file)
    with server() as address:
        read = documents(kubectl(tmp_path, "--server", address, *words))
    meant = [each for each in objects(MANIFESTS[case]) if each["kind"] != "Secret"]
    for each in meant:
        each["metadata"].setdefault("namespace", "default")
    assert read == meant


PATCHES: Sequence[dict[str, Any]] = (
    {"spec": {"ttlSecondsAfterFinished": 5, "template": {"metadata": {"labels": {"a": "b"}}}}},
    {"spec": {"template": {"spec": {"securityContext": {"runAsUser": None}}}}},
    {
        "spec": {
            "template": {
                "spec": {
                    "containers": [
                        {"name": "distrun", "args": ["x"], "env": [{"name": "HOME", "value": "/x"}]}
                    ],
                    "volumes": [{"name": "runs", "$patch": "delete"}],
                    "tolerations": [{"key": "a", "operator": "Exists"}],
                    "securityContext": {"$patch": "replace", "runAsNonRoot": True},
                }
            }
        }
    },
    {
        "spec": {
            "template": {
                "spec": {
                    "containers": [
                        {
                            "name": "distrun",
                            "volumeMounts": [{"mountPath": "/tmp", "name": "shm"}],
                            "securityContext": {
                                "capabilities": {"drop": None, "add": ["IPC_LOCK"]}
                            },
                        }
                    ]
                }
            }
        }
    },
)


@pytest.mark.parametrize("patch", PATCHES)
def test_a_patch_does_what_kubectls_strategic_merge_does(
    patch: dict[str, Any], tmp_path: Path
) -> None:
    plain = replace(MANIFESTS["job"], nodes=1)
    file = tmp_path / "job.yaml"
    file.write_text(text(plain), encoding="utf-8")
    words = ("patch", "--local", "--type=strategic", f"-p={json.dumps(patch)}", "-o", "json")
    (theirs,) = documents(kubectl(tmp_path, *words, "-f", file))
    assert objects(replace(plain, patches=(patch,)))[-1] == theirs
