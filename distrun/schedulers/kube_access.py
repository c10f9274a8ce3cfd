"""Which Kubernetes server, namespace and user: from a kubeconfig, or inside of a pod."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrun.errors import MachineError, UsageError, did_you_mean
from distrun.extras import missing

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_USUAL = "~/.kube/config"


@dataclass(frozen=True)
class Access:
    """What names a server; each "" is what `kubectl` would take."""

    context: str = ""
    namespace: str = ""
    kubeconfig: str = ""

    def to_json(self) -> dict[str, str]:
        """Return it for a run's record; `from_json` reads it back."""
        found = {"context": self.context, "namespace": self.namespace}
        return {**found, "kubeconfig": self.kubeconfig} if self.kubeconfig else found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Access:
        """Return what a run's record names."""
        names = ("context", "namespace", "kubeconfig")
        return cls(**{name: str(data.get(name) or "") for name in names})


def client_of(access: Access) -> tuple[ApiClient, Access]:
    """Return the client, and the context and namespace that were chosen.

    Raises:
        UsageError: The kubeconfig or the context cannot be used.
        MachineError: The client is not installed.
    """
    if command := missing("kubernetes", "kubernetes"):
        raise MachineError("--on kubernetes needs the Python package kubernetes", command)
    from kubernetes.client import ApiClient, Configuration

    configuration = Configuration()
    configuration.retries = False  # `patiently` asks again
    path = access.kubeconfig or os.environ.get("KUBECONFIG", "") or _USUAL
    known = [each for each in path.split(os.pathsep) if Path(each).expanduser().is_file()]
    if not known and not access.kubeconfig and not access.context and _is_inside():
        chosen = _from_account(access, configuration)
    elif not known:
        named = "--kubeconfig" if access.kubeconfig else "kubeconfig"
        raise UsageError(
            f"{named} {path!r} is not there",
            "--kubeconfig FILE or KUBECONFIG names it; your cluster's provider writes it",
        )
    else:
        chosen = _from_file(access, path, configuration)
    return ApiClient(configuration), chosen


def _is_inside() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (_ACCOUNT / "token").is_file()


def _from_account(access: Access, configuration: Configuration) -> Access:
    from kubernetes.config import ConfigException, load_incluster_config

    try:
        load_incluster_config(client_configuration=configuration)
        own = (_ACCOUNT / "namespace").read_text().strip()
    except (ConfigException, OSError, ValueError) as error:
        raise UsageError(
            f"the service account of this pod cannot be used: {error}",
            "automountServiceAccountToken of the pod, or --kubeconfig FILE",
        ) from None
    return replace(access, context="in-cluster", namespace=access.namespace or own or "default")


def _from_file(access: Access, path: str, configuration: Configuration) -> Access:
    import yaml
    from kubernetes.config import ConfigException, list_kube_config_contexts, load_kube_config

    try:
        contexts, current = list_kube_config_contexts(path)
        found = {str(each["name"]): each for each in contexts}
        name = access.context or str(current["name"])
        if name in found:
            load_kube_config(path, name, configuration, persist_config=False)
    except (ConfigException, yaml.YAMLError, OSError) as error:
        raise UsageError(*_unusable(path, error)) from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # the client takes the file for well-formed, and fails in many ways where it is not
        raise UsageError(*_unusable(path, error)) from None
    if name not in found:
        raise UsageError(f"--context {name!r} is not in {path}", did_you_mean(name, found))
    own = (found[name].get("context") or {}).get("namespace")
    namespace = access.namespace or str(own or "default")
    kubeconfig = str(Path(path).expanduser().absolute()) if access.kubeconfig else ""
    return Access(name, namespace, kubeconfig)


def _unusable(path: str, error: Exception) -> tuple[str, str]:
    said = " ".join(str(error).split()) or type(error).__name__
    return f"kubeconfig {path} cannot be used: {said}", "`kubectl config view` reads it too"
