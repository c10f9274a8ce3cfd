"""The objects of a run, in the order in which they are created: what the job needs, then the job.

Job: https://kubernetes.io/docs/concepts/workloads/controllers/job/
JobSet: https://jobset.sigs.k8s.io/docs/reference/
TrainJob: https://www.kubeflow.org/docs/components/trainer/
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from distrun.errors import ExitCode, UsageError
from distrun.schedulers.kubernetes.manifest import (
    REPLICATED_JOB,
    TRAINJOB_CONTAINER,
    Manifest,
    ScriptFile,
)
from distrun.schedulers.kubernetes.merge import merged
from distrun.schedulers.kubernetes.pod import (
    default_container,
    environment,
    literal,
    overrides,
    resources,
    script_key,
    template,
)

QUEUE = "kueue.x-k8s.io/queue-name"
RUNTIME = "torch-distributed"
"""A ClusterTrainingRuntime that comes with Kubeflow Trainer; --patch names another."""
MAX_CONFIGMAP_NBYTES = 1 << 20
"""Of all its data: https://kubernetes.io/docs/concepts/configuration/configmap/"""
_COMES_BACK = (ExitCode.JOIN_TIMEOUT, ExitCode.NODE_LOST, ExitCode.TERMINATED)
"""The codes of a launch that something outside of the program has ended."""


def objects(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the objects as plain JSON, in the order of their creation.

    Raises:
        UsageError: The script is too large, or a patch does not fit.
    """
    made = []
    if manifest.script is not None:
        made.append(_config_map(manifest, manifest.script))
    if manifest.secrets:
        made.append(_secret(manifest))
    if manifest.network_policy:
        made.append(_network_policy(manifest))
    if manifest.kind == "job" and manifest.nodes > 1:
        made.append(_service(manifest))
    made.append(_KINDS[manifest.kind](manifest))
    return merged(made, manifest.patches)


def _meta(manifest: Manifest, **more: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": manifest.name}
    if manifest.namespace:
        meta["namespace"] = manifest.namespace
    return {**meta, "labels": manifest.labels, **more}


def _object(kind: str, manifest: Manifest, version: str = "v1", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": _meta(manifest), **fields}


def _config_map(manifest: Manifest, script: ScriptFile) -> dict[str, Any]:
    if len(script.content) > MAX_CONFIGMAP_NBYTES:
        raise UsageError(
            f"--configmap: {script.name!r} has {len(script.content)} bytes; the limit of a"
            f" ConfigMap is {MAX_CONFIGMAP_NBYTES} bytes",
            "put the script into the image, and leave --configmap out",
        )
    key = script_key(script.name)
    try:
        return _object("ConfigMap", manifest, data={key: script.content.decode()})
    except UnicodeDecodeError:  # it declares another encoding
        content = base64.b64encode(script.content).decode()
        return _object("ConfigMap", manifest, binaryData={key: content})


def _secret(manifest: Manifest) -> dict[str, Any]:
    return _object("Secret", manifest, type="Opaque", stringData=dict(manifest.secrets))


def _pod_labels(manifest: Manifest) -> dict[str, str]:
    if manifest.kind == "trainjob":  # its JobSet has its name, and marks the pods
        return {"jobset.sigs.k8s.io/jobset-name": manifest.name}
    return manifest.labels


def _network_policy(manifest: Manifest) -> dict[str, Any]:
    pods = {"matchLabels": _pod_labels(manifest)}
    return _object(
        "NetworkPolicy",
        manifest,
        "networking.k8s.io/v1",
        spec={
            "podSelector": pods,
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": pods}]}],
        },
    )


def _service(manifest: Manifest) -> dict[str, Any]:
    return _object(
        "Service",
        manifest,
        spec={
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": manifest.labels,
        },
    )


def _top(manifest: Manifest) -> dict[str, Any]:
    """Return the metadata of the job itself; Kueue looks for its queue there."""
    meta = _meta(manifest)
    if manifest.queue:
        meta["labels"] = {**meta["labels"], QUEUE: manifest.queue}
    return meta


def _rules(lost: str) -> dict[str, Any]:
    """Return the rules for failed pods; the first that fits counts.

    Args:
        lost: What to do for a pod that was preempted, evicted or lost with its node.
    """
    codes = {"operator": "NotIn", "values": sorted(int(code) for code in _COMES_BACK)}
    return {
        "rules": [
            {
                "action": lost,
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            },
            {"action": "FailJob", "onExitCodes": codes},
        ]
    }


def _job_spec(manifest: Manifest, *, backoff: int, lost: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": manifest.nodes,
        "parallelism": manifest.nodes,
        "backoffLimit": backoff,
        "podFailurePolicy": _rules(lost),
    }
    if manifest.kind == "job" and manifest.ttl_s is not None:
        spec["ttlSecondsAfterFinished"] = manifest.ttl_s
    return spec


def _job(manifest: Manifest) -> dict[str, Any]:
    spec = _job_spec(manifest, backoff=manifest.retries * manifest.nodes, lost="Ignore")
    pods = template(manifest)
    if manifest.nodes > 1:
        pods["spec"] = {"subdomain": manifest.name, **pods["spec"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _top(manifest),
        "spec": {**spec, "template": pods},
    }


def _job_set(manifest: Manifest) -> dict[str, Any]:
    inner = _job_spec(manifest, backoff=0, lost="Count")
    spec: dict[str, Any] = {
        "network": {
            "enableDNSHostnames": True,
            "publishNotReadyAddresses": True,
            "subdomain": manifest.name,
        },
        "failurePolicy": {
            "maxRestarts": manifest.retries,
            "rules": [
                {
                    "name": "failureOfARank",
                    "action": "FailJobSet",
                    "onJobFailureReasons": ["PodFailurePolicy"],
                }
            ],
        },
    }
    if manifest.ttl_s is not None:
        spec["ttlSecondsAfterFinished"] = manifest.ttl_s
    job = {"spec": {**inner, "template": template(manifest)}}
    spec["replicatedJobs"] = [{"name": REPLICATED_JOB, "replicas": 1, "template": job}]
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": _top(manifest),
        "spec": spec,
    }


def _train_job(manifest: Manifest) -> dict[str, Any]:
    trainer: dict[str, Any] = {
        "image": manifest.image,
        "command": [literal(word) for word in manifest.command],
        "args": [literal(word) for word in manifest.args],
        "env": environment(manifest),
        "numNodes": manifest.nodes,
    }
    if manifest.ranks is not None:
        trainer["numProcPerNode"] = manifest.ranks
    if found := resources(manifest):
        trainer["resourcesPerNode"] = found
    pods = {"metadata": {"annotations": default_container(TRAINJOB_CONTAINER)}}
    pods["spec"] = overrides(manifest)
    replicated = {"name": REPLICATED_JOB, "template": {"spec": {"template": pods}}}
    patch = {"template": {"spec": {"replicatedJobs": [replicated]}}}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": _top(manifest),
        "spec": {
            "runtimeRef": {"name": RUNTIME},
            "trainer": trainer,
            "runtimePatches": [{"manager": "distrun", "trainingRuntimeSpec": patch}],
        },
    }


_KINDS: Mapping[str, Callable[[Manifest], dict[str, Any]]] = {
    "job": _job,
    "jobset": _job_set,
    "trainjob": _train_job,
}
