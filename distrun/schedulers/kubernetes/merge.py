"""Merges a user's patches into the objects, as `kubectl patch --type strategic` does.

Mappings are merged, a null deletes a key, and a list replaces the other, but for those whose
entries have a name: an entry of the same name is merged, another one is added. `$patch: delete` in
an entry takes it away, `$patch: replace` keeps nothing of what was there.
https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distrun.errors import UsageError, did_you_mean
from distrun.schedulers.kubernetes.keys import KEYS

_NAMED_BY = {
    **dict.fromkeys(("containers", "initContainers", "volumes", "env", "replicatedJobs"), "name"),
    **dict.fromkeys(("imagePullSecrets", "resourceClaims", "schedulingGates"), "name"),
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "runtimePatches": "manager",
}
"""List -> the key by which its entries are told apart (`patchMergeKey` of the API)."""
_DIRECTIVE = "$patch"


def merged(
    objects: Sequence[dict[str, Any]], patches: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the objects with the patches in them.

    Args:
        objects: The objects; the last one is the job.
        patches: Each names the `kind` of the object that it is for, or is for the job.

    Raises:
        UsageError: A patch is for no object here, has a key that the object has not, or changes
            what others refer to.
    """
    found = list(objects)
    for patch in patches:
        index = _index(found, patch)
        _hold_keys(patch, str(found[index]["kind"]), "")
        now = _mapping(found[index], patch, "")
        _hold_identity(found[index], now)
        found[index] = now
    return found


def _index(objects: Sequence[Mapping[str, Any]], patch: Mapping[str, Any]) -> int:
    kinds = [str(each["kind"]) for each in objects]
    kind = patch.get("kind", kinds[-1])
    if kind not in kinds:
        raise UsageError(
            f"--patch is for a {kind!r}, which this run has not", f"kinds: {', '.join(kinds)}"
        )
    return kinds.index(kind)


def _hold_keys(value: Any, type_name: str, path: str) -> None:
    """Refuse a key that the API does not know, as far down as it is listed."""
    if isinstance(value, list):
        for each in value:
            _hold_keys(each, type_name, path)
        return
    if not isinstance(value, Mapping):
        return
    known = dict(entry.partition(":")[::2] for entry in KEYS[type_name].split())
    for key, inner in value.items():
        if key.startswith("$"):
            continue
        if key not in known:
            where = f" in {path}" if path else ""
            raise UsageError(
                f"--patch: {key!r} is no key of {type_name}{where}", did_you_mean(key, known)
            )
        if known[key]:
            _hold_keys(inner, known[key], f"{path}.{key}".lstrip("."))


def _hold_identity(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Refuse a change of what the objects know one another by."""
    meta = after.get("metadata")
    for path, own, now in (
        ("apiVersion", before["apiVersion"], after.get("apiVersion")),
        *(
            (f"metadata.{key}", before["metadata"].get(key), _of(meta, key))
            for key in ("name", "namespace")
        ),
    ):
        if now != own:
            raise UsageError(
                f"--patch changes {path} of the {before['kind']} from {own!r} to {now!r}",
                "--job-name and --namespace say how the objects are named",
            )


def _of(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _mapping(target: Mapping[str, Any], patch: Mapping[str, Any], path: str) -> dict[str, Any]:
    directive = patch.get(_DIRECTIVE, "merge")
    rest = {key: value for key, value in patch.items() if key != _DIRECTIVE}
    unknown = [key for key in rest if key.startswith("$")]
    if unknown or directive not in ("merge", "replace"):
        shown = unknown[0] if unknown else f"{_DIRECTIVE}: {directive!r}"
        raise UsageError(
            f"--patch: {shown} is not known at {path or 'the top'}",
            "a null deletes a key; `$patch: delete` deletes an entry of a list",
        )
    found = {} if directive == "replace" else dict(target)
    for key, value in rest.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _value(found.get(key), value, key, f"{path}.{key}".lstrip("."))
    return found


def _value(target: Any, patch: Any, key: str, path: str) -> Any:
    if isinstance(patch, Mapping):
        return _mapping(target if isinstance(target, Mapping) else {}, patch, path)
    if isinstance(patch, list) and key in _NAMED_BY:
        return _entries(target if isinstance(target, list) else [], patch, _NAMED_BY[key], path)
    return patch


def _entries(
    target: Sequence[Any], patch: Sequence[Any], name_key: str, path: str
) -> list[dict[str, Any]]:
    """Merge a list whose entries have names."""
    whole = [each for each in patch if isinstance(each, Mapping)]
    replaces = [each for each in whole if each == {_DIRECTIVE: "replace"}]
    found = [] if replaces else list(target)
    for entry in patch:
        if entry in replaces:
            continue
        if not isinstance(entry, Mapping) or not isinstance(entry.get(name_key), str):
            raise UsageError(
                f"--patch: an entry of {path} has no {name_key}",
                f"{name_key} says which entry it is merged into",
            )
        at = [i for i, each in enumerate(found) if each.get(name_key) == entry[name_key]]
        if entry.get(_DIRECTIVE) == "delete":
            found = [each for i, each in enumerate(found) if i not in at]
        elif at:
            found[at[0]] = _mapping(found[at[0]], entry, path)
        else:
            found.append(_mapping({}, entry, path))
    return found
