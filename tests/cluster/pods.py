"""The pods of a rendered Indexed Job, JobSet or TrainJob, run by podman from the same template.

What the controllers add is added by hand, as their documentation has it:
https://jobset.sigs.k8s.io/docs/concepts/ and
https://www.kubeflow.org/docs/components/trainer/user-guides/pytorch/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Object = Mapping[str, Any]


class Pods(NamedTuple):
    """The pods of one job, which are equal but for their index."""

    spec: Object
    """Of each."""
    count: int
    hostname: str
    """Of each, without its index."""
    subdomain: str
    """The headless Service in which the hostnames are."""
    environ: Mapping[str, str]
    """What the controller adds to the container's own."""


def pods_of(objects: Sequence[Object], directory: Path) -> list[tuple[list[str], list[str]]]:
    """Return the options of `podman run`, and the command, of each pod.

    What Kubernetes adds is added: index, hostname, the name in the headless Service, and the
    values of Secrets. A mount that the template does not have, no pod gets.

    Args:
        objects: The rendered objects.
        directory: For the files of ConfigMaps.
    """
    job = next(each for each in objects if each["kind"] in _KINDS)
    pods = _KINDS[job["kind"]](job)
    secrets = {
        each["metadata"]["name"]: each["stringData"] for each in objects if each["kind"] == "Secret"
    }
    files = {each["metadata"]["name"]: each for each in objects if each["kind"] == "ConfigMap"}
    (container,) = pods.spec["containers"]
    words = [*container.get("command", []), *container.get("args", [])]
    made = []
    for index in range(pods.count):
        name = f"{pods.hostname}-{index}"
        options = [
            *(f"--hostname={name}", f"--network-alias={name}.{pods.subdomain}"),
            f"--env=JOB_COMPLETION_INDEX={index}",
            *(f"--env={key}={value}".format(index=index) for key, value in pods.environ.items()),
            *_environ(container, secrets),
            *_security(pods.spec, container),
            *_mounts(pods.spec, container, files, directory),
            f"--stop-timeout={pods.spec['terminationGracePeriodSeconds']}",
        ]
        if container.get("command"):  # it takes the place of the image's entry point
            options.append("--entrypoint=")
        made.append((options, words))
    return made


def _pods_of_job(job: Object) -> Pods:
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    pod = spec["template"]["spec"]
    return Pods(pod, spec["completions"], job["metadata"]["name"], pod["subdomain"], {})


def _pods_of_job_set(job_set: Object) -> Pods:
    """A JobSet names hosts by itself, its replicated job, the job's index and the pod's."""
    name, (replicated,) = job_set["metadata"]["name"], job_set["spec"]["replicatedJobs"]
    network, inner = job_set["spec"]["network"], replicated["template"]["spec"]
    assert network["enableDNSHostnames"] is True
    assert (replicated["replicas"], inner["completionMode"]) == (1, "Indexed")
    hostname = f"{name}-{replicated['name']}-0"
    pod = inner["template"]["spec"]
    return Pods(pod, inner["completions"], hostname, network["subdomain"], {})


def _pods_of_train_job(train_job: Object) -> Pods:
    """The runtime's pod has one container, `node`, that gets what the TrainJob says."""
    name, trainer = train_job["metadata"]["name"], train_job["spec"]["trainer"]
    (patch,) = train_job["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = dict(replicated["template"]["spec"]["template"]["spec"])
    (container,) = pod["containers"]
    assert replicated["name"] == container["name"] == "node"
    pod["containers"] = [container | {key: trainer[key] for key in ("command", "args", "env")}]
    environ = {
        "PET_NNODES": str(trainer["numNodes"]),
        "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
        "PET_NODE_RANK": "{index}",
        "PET_MASTER_ADDR": f"{name}-node-0-0.{name}",
        "PET_MASTER_PORT": "29500",
    }
    return Pods(pod, trainer["numNodes"], f"{name}-node-0", name, environ)


_KINDS = {"Job": _pods_of_job, "JobSet": _pods_of_job_set, "TrainJob": _pods_of_train_job}


def _environ(container: Object, secrets: Mapping[str, Object]) -> Iterator[str]:
    for each in container["env"]:
        value = each.get("value")
        if value is None:
            reference = each["valueFrom"]["secretKeyRef"]
            value = secrets[reference["name"]][reference["key"]]
        yield f"--env={each['name']}={value}"


def _security(spec: Object, container: Object) -> Iterator[str]:
    """Yield options for the security contexts; all of their keys have to be known."""
    of_pod, own = dict(spec["securityContext"]), dict(container["securityContext"])
    assert of_pod.pop("runAsNonRoot") is True
    yield f"--user={of_pod.pop('runAsUser')}:{of_pod.pop('runAsGroup', 0)}"
    assert of_pod.pop("seccompProfile") == {"type": "RuntimeDefault"}  # podman's default, too
    of_pod.pop("fsGroup", None)
    of_pod.pop("fsGroupChangePolicy", None)
    assert own.pop("allowPrivilegeEscalation") is False
    yield "--security-opt=no-new-privileges"
    assert own.pop("readOnlyRootFilesystem") is True
    yield from ("--read-only", "--read-only-tmpfs=false")
    yield from (f"--cap-drop={each}" for each in own.pop("capabilities")["drop"])
    assert not of_pod, of_pod
    assert not own, own


def _mounts(
    spec: Object, container: Object, files: Mapping[str, Object], directory: Path
) -> Iterator[str]:
    kinds = {each["name"]: each for each in spec["volumes"]}
    for mount in container["volumeMounts"]:
        kind, at = kinds[mount["name"]], mount["mountPath"]
        if "configMap" in kind:
            data = files[kind["configMap"]["name"]]["data"]
            for item in kind["configMap"]["items"]:
                (directory / item["path"]).write_text(data[item["key"]])
            yield f"--volume={directory}:{at}:ro"
        elif "persistentVolumeClaim" in kind:  # of a file system that all nodes share
            (claim := directory / kind["persistentVolumeClaim"]["claimName"]).mkdir(exist_ok=True)
            claim.chmod(0o777)
            yield f"--volume={claim}:{at}"
        elif at == "/dev/shm":
            yield "--shm-size=1g"
        else:
            assert "emptyDir" in kind
            yield f"--tmpfs={at}:mode=1777,exec"
