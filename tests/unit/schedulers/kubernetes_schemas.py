"""The schemas of Kubernetes, and of the CRDs of JobSet and TrainJob where they are."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CRDS = "DISTRUN_TEST_CRDS"
"""The directory that holds jobsets.yaml and trainjobs.yaml, the CRDs as published."""
VERSION = "1.37"


@functools.cache
def definitions() -> dict[str, Any]:
    """Return the types of Kubernetes by their whole names."""
    validate = pytest.importorskip("kubernetes_validate", reason="it brings the schemas")
    folder = Path(validate.__file__).parent / "kubernetes-json-schema" / f"v{VERSION}.0-local"
    found: dict[str, Any] = json.loads((folder / "_definitions.json").read_text())["$defs"]
    return found


@functools.cache
def crd_schema(kind: str) -> dict[str, Any]:
    """Return the schema of a JobSet or a TrainJob; skip the test where it is not."""
    if not (folder := os.environ.get(CRDS)):
        pytest.skip(f"{CRDS} names no directory with the CRDs")
    file = Path(folder) / f"{kind.lower()}s.yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    (version,) = yaml.load(file.read_text(), loader)["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def inner(schema: dict[str, Any], *path: str) -> dict[str, Any]:
    """Return the schema of a field; of a list that of its entries."""
    for step in path:
        schema = schema["properties"][step]
        schema = schema.get("items", schema)
    return schema


def unknown_fields(schema: dict[str, Any], value: Any, path: str = "") -> Iterator[str]:
    """Yield the fields of a value that a schema has not, and that a server would prune."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from unknown_fields(schema["items"], each, f"{path}[{index}]")
    elif isinstance(value, dict):
        free = schema.get("additionalProperties")
        known = schema.get("properties", {})
        for key, each in value.items():
            if free or key in known:
                below = known.get(key) or free
                yield from unknown_fields(below, each, f"{path}.{key}")
            elif path != ".metadata":  # an ObjectMeta, which the CRD leaves open
                yield f"{path}.{key}"


def rules(schema: dict[str, Any], value: Any) -> Iterator[tuple[str, Any]]:
    """Yield each CEL rule that applies to a value, with the value that it is about."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"]:  # of an update
            yield rule["rule"], value
    if isinstance(value, list):
        for each in value:
            yield from rules(schema.get("items", {}), each)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from rules(schema.get("properties", {}).get(key, {}), each)
