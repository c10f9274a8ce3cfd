"""The pods of a rendered Indexed Job, run by podman from the same pod template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Object = Mapping[str, Any]


def pods_of(objects: Sequence[Object], directory: Path) -> list[tuple[list[str], list[str]]]:
    """Return the options of `podman run`, and the command, of each pod of a Job.

    What Kubernetes adds is added: index, hostname, the name in the headless Service, and the
    values of Secrets. A mount that the template does not have, no pod gets.

    Args:
        objects: The rendered objects.
        directory: For the files of ConfigMaps.
    """
    job = next(each for each in objects if each["kind"] == "Job")
    secrets = {
        each["metadata"]["name"]: each["stringData"] for each in objects if each["kind"] == "Secret"
    }
    files = {each["metadata"]["name"]: each for each in objects if each["kind"] == "ConfigMap"}
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert job["spec"]["completionMode"] == "Indexed"
    name, service = job["metadata"]["name"], spec["subdomain"]
    pods = []
    for index in range(job["spec"]["completions"]):
        options = [
            *(f"--hostname={name}-{index}", f"--network-alias={name}-{index}.{service}"),
            f"--env=JOB_COMPLETION_INDEX={index}",
            *_environ(container, secrets),
            *_security(spec, container),
            *_mounts(spec, container, files, directory),
            f"--stop-timeout={spec['terminationGracePeriodSeconds']}",
        ]
        if container.get("command"):  # it takes the place of the image's entry point
            options.append("--entrypoint=")
        words = [*container.get("command", []), *container.get("args", [])]
        pods.append((options, words))
    return pods


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
