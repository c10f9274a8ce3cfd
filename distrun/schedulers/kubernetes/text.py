"""The objects of a run as YAML, with comments that say why."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import distrun
from distrun.schedulers.kubernetes.manifest import DIAL_KEY, Manifest
from distrun.schedulers.kubernetes.workloads import objects
from distrun.schedulers.yaml_text import Path, comment_lines, document

_WHY: Mapping[str, str] = {
    "NetworkPolicy.spec": "What ranks send one another is neither encrypted nor authenticated:\n"
    "only the pods of this run may connect to them.",
    "Service.spec.clusterIP": "Headless: each pod has a name, JOB-INDEX.SERVICE.",
    "Service.spec.publishNotReadyAddresses": "The pods find one another before they are ready.",
    "spec.completionMode": "A pod a node; JOB_COMPLETION_INDEX says which one it is.",
    "Job.spec.backoffLimit": "Failed pods, not runs: a lost node ends the pods of all nodes.",
    "JobSet.failurePolicy.maxRestarts": "All pods start again together.",
    "JobSet.failurePolicy.rules": "The failure of a rank is final; what else ends the pods is not.",
    "template.spec.backoffLimit": "The JobSet starts all pods again, not this job one of them.",
    "spec.podFailurePolicy": "Exit codes of `distrun launch`: 4, a node did not join; 5, a node was"
    " lost;\n143, it was terminated. Any other is of the program itself, and would come again.",
    "spec.ttlSecondsAfterFinished": "The logs of the pods go with it.",
    "spec.subdomain": "The name of the Service.",
    "spec.restartPolicy": "A container that starts again alone would meet a world that is gone.",
    "spec.terminationGracePeriodSeconds": "The ranks' --grace, and time to record the end.",
    "spec.activeDeadlineSeconds": "--time-limit is kept by the launcher, with exit code 124. This"
    " ends a pod\nwhose launcher does not; the time in the queue does not count.",
    "spec.automountServiceAccountToken": "Nothing in the pod speaks with the API server.",
    "spec.enableServiceLinks": "A Service called master would set MASTER_PORT.",
    "spec.securityContext": 'What the Pod Security Standard "restricted" asks for.',
    "securityContext.fsGroup": "May write to the volumes.",
    "securityContext.readOnlyRootFilesystem": "What has to be written is in the volumes.",
    "env.MASTER_ADDR": "Node 0.",
    "env.HOME": "The one place for temporary files and caches; the user has no entry in passwd.",
    f"env.{DIAL_KEY}": "With this key the other nodes dial in to node 0, which supervises all.",
    "volumes.shm": "/dev/shm: 1 GiB a rank and 1 GiB; it counts as memory of the pod.",
    "volumes.runs": "Gone with the pod: --volume keeps the runs.",
    "trainer.numNodes": "The controller sets PET_NNODES and its like, which the launch reads.",
    "spec.runtimeRef": "Its policies for failed pods and for restarts hold.",
}
"""The end of a path -> why. Entries of lists are called by their names."""


def text(manifest: Manifest) -> str:
    """Return the objects as one file of YAML; the values of secrets are not in it.

    Raises:
        UsageError: See `objects`.
    """
    made = objects(manifest)
    parts = ["\n".join([*_head(manifest), *_how_to_make_the_secret(manifest)]) + "\n"]
    parts += [_document(each) for each in made if each["kind"] != "Secret"]
    return "---\n".join(parts)


def _head(manifest: Manifest) -> Iterator[str]:
    by = f": {shlex.join(manifest.made_by)}" if manifest.made_by else ""
    yield from comment_lines(_one_line(f"Written by distrun {distrun.__version__}{by}"))
    yield "# `kubectl create -f FILE` starts the run."


def _one_line(words: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in words)


def _how_to_make_the_secret(manifest: Manifest) -> Iterator[str]:
    if not manifest.secrets:
        return
    words = [f"kubectl create secret generic {manifest.name}"]
    if manifest.namespace:
        words.append(f"--namespace={manifest.namespace}")
    for name in manifest.secrets:
        value = f'"${name}"' if name.isidentifier() else '"…"'
        value = '"$(openssl rand -hex 32)"' if name == DIAL_KEY else value
        words.append(f"--from-literal={name}={value}")
    yield f"# The values of its Secret {manifest.name!r} are not in this file. Before it:"
    yield "#   " + " \\\n#     ".join(words)


def _document(made: Mapping[str, Any]) -> str:
    kind = str(made["kind"])

    def why(path: Path) -> str:
        names = [kind, *_names(made, path)]
        found = (".".join(names[-count:]) for count in (3, 2))
        exact = ".".join([kind, *names[-2:]])
        return next((_WHY[each] for each in (exact, *found) if each in _WHY), "")

    return document(made, why)


def _names(value: Any, path: Path) -> Iterator[str]:
    """Yield the parts of a path; of a named entry its name, and nothing for its `name` itself."""
    for step in path:
        value = value[step]
        if isinstance(step, str):
            yield step
        elif isinstance(value, Mapping) and "name" in value:
            yield str(value["name"])
