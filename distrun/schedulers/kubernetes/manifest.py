"""What is asked of Kubernetes for one run: data, from which the objects are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distrun.spec.kubernetes_values import Toleration, Volume

CONTAINER = "distrun"
TRAINJOB_CONTAINER = "node"
"""The runtimes of Kubeflow Trainer call it, and its replicated job, so."""
REPLICATED_JOB = "node"
RUNS_DIR = "/runs"
SCRIPT_DIR = "/script"
DIAL_KEY = "DISTRUN_DIAL_KEY"


@dataclass(frozen=True)
class ScriptFile:
    """The script, to be brought in a ConfigMap."""

    name: str
    """Its file name."""
    content: bytes


@dataclass(frozen=True)
class Manifest:
    """A run as a job of Kubernetes."""

    name: str
    kind: str
    """job, jobset or trainjob."""
    image: str
    command: tuple[str, ...]
    """What starts distrun's launch in a container."""
    args: tuple[str, ...]
    """Its arguments; the same in every pod."""
    nodes: int = 1
    """Number of pods."""
    ranks: int | None = None
    """Ranks on each node; None: as many as a pod has GPUs or cores."""
    gpus: int = 0
    """GPUs of each node."""
    grace_s: float = 30.0
    time_limit_s: float | None = None
    join_timeout_s: float = 300.0
    retries: int = 3
    ttl_s: int | None = None
    namespace: str = ""
    """That of whoever creates the objects, if it is empty."""
    workdir: str = ""
    """That of the image, if it is empty."""
    script: ScriptFile | None = None
    resources: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    volumes: tuple[Volume, ...] = ()
    queue: str = ""
    network_policy: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables whose values are secret; they are never printed."""
    patches: tuple[Mapping[str, Any], ...] = ()
    """Partial objects, to be merged; without a `kind`, into the job."""
    made_by: tuple[str, ...] = ()
    """The command line that is named in the text; secrets are masked by the caller."""

    @property
    def labels(self) -> dict[str, str]:
        """What every object and every pod of the run has, and no other.

        https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
        """
        return {"app.kubernetes.io/name": "distrun", "app.kubernetes.io/instance": self.name}

    @property
    def head(self) -> str:
        """The name of node 0's pod in the headless Service.

        Of an Indexed Job it is JOB-INDEX, of a JobSet JOBSET-REPLICATEDJOB-0-INDEX:
        https://kubernetes.io/docs/tasks/job/job-with-pod-to-pod-communication/ and
        https://jobset.sigs.k8s.io/docs/concepts/
        """
        job = f"{self.name}-{REPLICATED_JOB}-0" if self.kind == "jobset" else self.name
        return f"{job}-0.{self.name}"

    @property
    def runs_dir(self) -> str:
        """Where a pod records the run: on the first volume that can be written, if there is one."""
        at = next((each.path for each in self.volumes if not each.read_only), "")
        return f"{at}/runs" if at else RUNS_DIR
