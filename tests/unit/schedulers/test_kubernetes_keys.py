"""The table of keys is that of the schemas."""

from __future__ import annotations

import pytest

from distrun.schedulers.kubernetes.keys import KEYS
from tests.unit.schedulers.kubernetes_schemas import crd_schema, definitions, inner

META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
TYPES = {
    **{name: f"batch.v1.{name}" for name in ("Job", "JobSpec", "PodFailurePolicy")},
    **{name: f"core.v1.{name}" for name in ("PodSpec", "Toleration", "Affinity", "Container")},
    **{name: f"core.v1.{name}" for name in ("EnvVar", "VolumeMount", "Volume", "Service")},
    **{name: f"core.v1.{name}" for name in ("ServiceSpec", "ConfigMap", "Secret")},
    **{name: f"networking.v1.{name}" for name in ("NetworkPolicy", "NetworkPolicySpec")},
    "PodFailureRule": "batch.v1.PodFailurePolicyRule",
    "PodTemplate": "core.v1.PodTemplateSpec",
    "PodSecurity": "core.v1.PodSecurityContext",
    "Resources": "core.v1.ResourceRequirements",
    "Security": "core.v1.SecurityContext",
    "EmptyDir": "core.v1.EmptyDirVolumeSource",
}
PATCH = ("spec", "runtimePatches")
SPEC = (*PATCH, "trainingRuntimeSpec", "template", "spec")
JOBS = (*SPEC, "replicatedJobs")
PODS = (*JOBS, "template", "spec", "template")
OF_CRDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "JobSet": ("JobSet", ()),
    "JobSetSpec": ("JobSet", ("spec",)),
    "JobSetNetwork": ("JobSet", ("spec", "network")),
    "JobSetFailurePolicy": ("JobSet", ("spec", "failurePolicy")),
    "ReplicatedJob": ("JobSet", ("spec", "replicatedJobs")),
    "JobTemplate": ("JobSet", ("spec", "replicatedJobs", "template")),
    "TrainJob": ("TrainJob", ()),
    "TrainJobSpec": ("TrainJob", ("spec",)),
    "RuntimeRef": ("TrainJob", ("spec", "runtimeRef")),
    "Trainer": ("TrainJob", ("spec", "trainer")),
    "RuntimePatch": ("TrainJob", PATCH),
    "RuntimeSpec": ("TrainJob", SPEC[:-2]),
    "RuntimeTemplate": ("TrainJob", SPEC[:-1]),
    "RuntimeJobSet": ("TrainJob", SPEC),
    "RuntimeJob": ("TrainJob", JOBS),
    "RuntimeJobTemplate": ("TrainJob", PODS[:-2]),
    "RuntimeJobSpec": ("TrainJob", PODS[:-1]),
    "RuntimePodTemplate": ("TrainJob", PODS),
    "RuntimePod": ("TrainJob", (*PODS, "spec")),
    "RuntimeContainer": ("TrainJob", (*PODS, "spec", "containers")),
}


def keys(name: str) -> set[str]:
    return {entry.partition(":")[0] for entry in KEYS[name].split()}


def test_every_type_is_compared_and_every_type_that_is_named_is_there() -> None:
    assert set(KEYS) == {*TYPES, *OF_CRDS, "Meta"}
    named = {entry.partition(":")[2] for each in KEYS.values() for entry in each.split()}
    assert named - {""} <= set(KEYS)


@pytest.mark.parametrize("name", [*TYPES, "Meta"])
def test_the_keys_are_those_of_the_api(name: str) -> None:
    whole = META if name == "Meta" else f"io.k8s.api.{TYPES[name]}"
    assert keys(name) == set(definitions()[whole]["properties"])


@pytest.mark.parametrize("name", OF_CRDS)
def test_the_keys_are_those_of_the_crd(name: str) -> None:
    kind, path = OF_CRDS[name]
    assert keys(name) == set(inner(crd_schema(kind), *path)["properties"])
