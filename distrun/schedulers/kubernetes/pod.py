"""The pod of one node: its container, its volumes, and what it must not do.

Fields: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/. The security
context is what the Pod Security Standard "restricted" asks for, and a read-only root besides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from distrun.schedulers.kubernetes.manifest import (
    CONTAINER,
    RUNS_DIR,
    SCRIPT_DIR,
    TRAINJOB_CONTAINER,
    Manifest,
)
from distrun.spec.kubernetes_values import Toleration, quantity

GPU = "nvidia.com/gpu"
_UID = 10001
"""Of the image in docker/; any other uid that is not root would do."""
_GROUP = 10001
_MORE_GRACE_S = 15
"""What the launcher needs after the ranks have ended: stop the other nodes, write the record."""
_MORE_TIME_S = 900
"""What a pod may need before the launch begins: to pull the image."""
_GIB = 1 << 30
_MANY_RANKS = 8


def template(manifest: Manifest) -> dict[str, Any]:
    """Return the pod template of a Job."""
    return {
        "metadata": {"labels": manifest.labels, "annotations": default_container(CONTAINER)},
        "spec": {
            **pod(manifest),
            **_placement(manifest),
            "volumes": volumes(manifest),
            "containers": [_container(manifest)],
        },
    }


def default_container(container: str) -> dict[str, str]:
    """Return the annotation that names the container with the run's output."""
    return {"kubectl.kubernetes.io/default-container": container}


def pod(manifest: Manifest) -> dict[str, Any]:
    """Return what is the same for every pod."""
    fields: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace_period_s(manifest),
    }
    if (deadline_s := pod_deadline_s(manifest)) is not None:
        fields["activeDeadlineSeconds"] = deadline_s
    fields["automountServiceAccountToken"] = False
    fields["enableServiceLinks"] = False
    fields["securityContext"] = pod_security(manifest)
    return fields


def overrides(manifest: Manifest) -> dict[str, Any]:
    """Return what a TrainJob may change in the pod of its runtime."""
    mounts = list(_mounts(manifest))
    return {
        "terminationGracePeriodSeconds": grace_period_s(manifest),
        "securityContext": pod_security(manifest),
        **_placement(manifest),
        "volumes": volumes(manifest),
        "containers": [
            {
                "name": TRAINJOB_CONTAINER,
                "securityContext": _container_security(),
                "volumeMounts": mounts,
            }
        ],
    }


def grace_period_s(manifest: Manifest) -> int:
    """Return the seconds from SIGTERM to SIGKILL of a pod."""
    return math.ceil(manifest.grace_s) + _MORE_GRACE_S


def pod_deadline_s(manifest: Manifest) -> int | None:
    """Return the limit of a pod's life; None if the run has no limit.

    The launcher keeps the limit of the run itself, and says so with 124. This one ends a pod whose
    launcher does not. It counts from the start of the pod on its node: that of a Job would count
    the time in the queue too.
    """
    if manifest.time_limit_s is None:
        return None
    launch_s = manifest.join_timeout_s + manifest.time_limit_s + grace_period_s(manifest)
    return math.ceil(launch_s) + _MORE_TIME_S


def pod_security(manifest: Manifest) -> dict[str, Any]:
    """Return the security context of the pod."""
    context: dict[str, Any] = {"runAsNonRoot": True, "runAsUser": _UID}
    if manifest.volumes:
        context |= {"fsGroup": _GROUP, "fsGroupChangePolicy": "OnRootMismatch"}
    return {**context, "seccompProfile": {"type": "RuntimeDefault"}}


def _container_security() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _placement(manifest: Manifest) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if manifest.node_selector:
        fields["nodeSelector"] = dict(manifest.node_selector)
    if manifest.tolerations:
        fields["tolerations"] = [_toleration(each) for each in manifest.tolerations]
    return fields


def _toleration(asked: Toleration) -> dict[str, Any]:
    found = {"key": asked.key, "operator": "Exists" if asked.value is None else "Equal"}
    if asked.value is not None:
        found["value"] = asked.value
    return {**found, "effect": asked.effect} if asked.effect else found


def _container(manifest: Manifest) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": CONTAINER,
        "image": manifest.image,
        "command": [literal(word) for word in manifest.command],
        "args": [literal(word) for word in manifest.args],
    }
    if manifest.workdir:
        fields["workingDir"] = manifest.workdir
    fields["env"] = environment(manifest)
    if found := resources(manifest):
        fields["resources"] = found
    fields["securityContext"] = _container_security()
    fields["volumeMounts"] = list(_mounts(manifest))
    return fields


def literal(word: str) -> str:
    """Return a word that Kubernetes passes on as it is: it replaces `$(NAME)`, and `$$` by `$`.

    https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/
    """
    return re.sub(r"\$(?=[$(])", "$$", word)


def environment(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the variables of the container."""
    found: list[dict[str, Any]] = []
    if manifest.kind != "trainjob" and manifest.nodes > 1:
        found.append({"name": "MASTER_ADDR", "value": manifest.head})
    found += [{"name": "HOME", "value": "/tmp"}, {"name": "USER", "value": "distrun"}]
    for name in manifest.secrets:
        reference = {"name": manifest.name, "key": name}
        found.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    return found


def resources(manifest: Manifest) -> dict[str, Any]:
    """Return limits, and the same as requests: what a node is given is its own."""
    asked = dict(manifest.resources)
    if manifest.gpus:
        asked.setdefault(GPU, str(manifest.gpus))
    return {"requests": asked, "limits": dict(asked)} if asked else {}


def shm_nbytes(manifest: Manifest) -> int:
    """Return the size of /dev/shm: 1 GiB a rank and 1 GiB, at most half of the memory limit."""
    ranks = manifest.ranks or manifest.gpus or _MANY_RANKS
    size = (ranks + 1) * _GIB
    if "memory" in manifest.resources:
        size = min(size, int(quantity(manifest.resources["memory"]) / 2))
    return size


def volumes(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the volumes of the pod."""
    found: list[dict[str, Any]] = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _mebi(shm_nbytes(manifest))}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if manifest.runs_dir == RUNS_DIR:
        found.append({"name": "runs", "emptyDir": {}})
    if manifest.script is not None:
        item = {"key": script_key(manifest.script.name), "path": manifest.script.name}
        found.append({"name": "script", "configMap": {"name": manifest.name, "items": [item]}})
    for index, volume in enumerate(manifest.volumes):
        claim = {"claimName": volume.claim} | ({"readOnly": True} if volume.read_only else {})
        found.append({"name": f"volume-{index}", "persistentVolumeClaim": claim})
    return found


def _mounts(manifest: Manifest) -> Iterator[dict[str, Any]]:
    yield {"name": "shm", "mountPath": "/dev/shm"}
    yield {"name": "tmp", "mountPath": "/tmp"}
    if manifest.runs_dir == RUNS_DIR:
        yield {"name": "runs", "mountPath": RUNS_DIR}
    if manifest.script is not None:
        yield {"name": "script", "mountPath": SCRIPT_DIR, "readOnly": True}
    for index, volume in enumerate(manifest.volumes):
        mount = {"name": f"volume-{index}", "mountPath": volume.path}
        yield mount | ({"readOnly": True} if volume.read_only else {})


def script_key(name: str) -> str:
    """Return a script's key in a ConfigMap, which has fewer characters than a file name may."""
    return re.sub(r"[^-._a-zA-Z0-9]", "_", name)[-200:]


def _mebi(nbytes: int) -> str:
    whole = max(1, nbytes >> 20)
    return f"{whole // 1024}Gi" if whole % 1024 == 0 else f"{whole}Mi"
