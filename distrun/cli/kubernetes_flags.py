"""The flags of `distrun launch` that are keys of `[tool.distrun.kubernetes]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distrun.cli.assignments import assignments
from distrun.errors import UsageError

KUBERNETES_FLAGS = (
    *("kind", "job_name", "namespace", "context", "kubeconfig", "configmap", "resource"),
    *("node_selector", "toleration", "volume", "queue", "retries", "ttl", "network_policy"),
    "patch",
)
_TABLES = ("resource", "node_selector")


def kubernetes_table(flags: dict[str, Any]) -> list[str]:
    """Move the flags for Kubernetes into their table; return those that were given, as typed.

    Raises:
        UsageError: A value of --resource or --node-selector is not KEY=VALUE.
    """
    given = {name: flags.pop(name) for name in KUBERNETES_FLAGS if name in flags}
    for name in _TABLES:
        if name in given:
            given[name] = assignments(given[name], _flag(name))
    if given:
        flags["kubernetes"] = given
    return [_flag(name) for name in given]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def refuse_kubernetes_flags(given: Sequence[str]) -> None:
    """Refuse flags for Kubernetes in a launch that asks it for nothing.

    Raises:
        UsageError: There is one.
    """
    if given:
        raise UsageError(f"{' and '.join(given)} asks Kubernetes for a job", "add --on kubernetes")
