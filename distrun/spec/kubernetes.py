"""The table `[tool.distrun.kubernetes]`: what `distrun launch --on kubernetes` renders."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, StrictBool, field_validator

from distrun.spec.base import Frozen
from distrun.spec.fields import Grace
from distrun.spec.kubernetes_values import (
    Label,
    NodeSelector,
    Resources,
    Tolerations,
    Volumes,
    job_name,
)


class Kubernetes(Frozen):
    """A job of Kubernetes: whose, where, and with what."""

    kind: Literal["job", "jobset", "trainjob"] = "job"
    """A plain Indexed Job, a JobSet (jobset.x-k8s.io), or a TrainJob of Kubeflow Trainer v2."""
    job_name: str = ""
    """Its name; by default the script's, and four hexadecimal digits when it is submitted."""
    namespace: Label = ""
    """Namespace; by default that of the context."""
    context: str = ""
    """Context of the kubeconfig; by default the current one."""
    kubeconfig: Path | None = None
    """The kubeconfig; by default $KUBECONFIG, ~/.kube/config, or the pod's own account."""
    configmap: StrictBool = False
    """Bring the script in a ConfigMap; else the image has it."""
    resource: Resources = Field(default_factory=dict)
    """Resources of each node, requested and as limits: cpu, memory, or one of a device plugin."""
    node_selector: NodeSelector = Field(default_factory=dict)
    """Labels that the nodes of the cluster must have."""
    toleration: Tolerations = ()
    """Taints that are tolerated, as KEY[=VALUE][:EFFECT]."""
    volume: Volumes = ()
    """Claims of volumes, as CLAIM:/PATH or CLAIM:/PATH:ro; the first one holds the runs."""
    queue: Label = ""
    """LocalQueue of Kueue."""
    retries: NonNegativeInt = 3
    """How often all pods may start again after a node was lost; a failure of a rank is final."""
    ttl: Grace | None = None
    """Delete the job, and its logs with it, so long after its end; by default it stays."""
    network_policy: StrictBool = False
    """Let only the pods of the run connect to one another."""
    patch: tuple[Path, ...] = ()
    """Files of YAML or JSON that are merged into the objects (strategic merge)."""

    @field_validator("job_name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        return job_name(value) if value else ""

    @field_validator("context")
    @classmethod
    def _is_one_line(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("is not the name of a context")
        return value
