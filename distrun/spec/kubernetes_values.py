"""Names and quantities as Kubernetes takes them, checked before anything is created.

https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
"""

from __future__ import annotations

import posixpath
import re
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from distrun.spec.base import Refused

MAX_JOB_NAME = 48
"""A pod of it is named JOB-node-0-INDEX at most, and that is a host name of 63 characters."""
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_WORD = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:{_SUBDOMAIN}/)?{_WORD}")
_VALUE = re.compile(rf"(?:{_WORD})?")
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|[MGTPE]|[KMGTPE]i)?", re.ASCII)
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_OWN_PATHS = ("/tmp", "/dev/shm", "/runs", "/script")
"""Where every pod has a volume already."""
_IMAGE = re.compile(
    # https://github.com/distribution/reference: [HOST[:PORT]/]PATH[:TAG][@DIGEST]
    r"(?:(?:[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9][-a-zA-Z0-9]*)*"
    r"|\[[0-9a-fA-F:]+\])(?::\d+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)


class Volume(NamedTuple):
    """A PersistentVolumeClaim, and where it is mounted."""

    claim: str
    path: str
    read_only: bool = False

    def __str__(self) -> str:
        return f"{self.claim}:{self.path}{':ro' if self.read_only else ''}"


class Toleration(NamedTuple):
    """A taint that is tolerated."""

    key: str
    value: str | None
    """None: whatever it is."""
    effect: str
    """All of them if it is empty."""

    def __str__(self) -> str:
        value = "" if self.value is None else f"={self.value}"
        return f"{self.key}{value}{':' + self.effect if self.effect else ''}"


def job_name(value: str) -> str:
    """Return a name that a Service, a Job and its pods may have (RFC 1035).

    Raises:
        Refused: It is none.
    """
    if not re.fullmatch(r"[a-z](?:[-a-z0-9]*[a-z0-9])?", value):
        raise Refused(
            f"{value!r} is not the name of a job",
            "lower-case letters, digits and '-', from a letter to a letter or digit",
        )
    if len(value) > MAX_JOB_NAME:
        raise Refused(
            f"{value!r} has {len(value)} characters; the limit is {MAX_JOB_NAME}, as the pods'"
            " names are longer",
            "a shorter name",
        )
    return value


def image(value: str) -> str:
    """Return the reference of an image.

    Raises:
        Refused: It is none.
    """
    if len(value) > 512 or not _IMAGE.fullmatch(value):
        raise Refused(
            f"{value!r} is not the name of an image",
            "[HOST[:PORT]/]NAME[:TAG][@DIGEST], NAME in lower case",
        )
    return value


def quantity(value: str) -> float:
    """Return a quantity as a number: `500m` is 0.5, `4Gi` is 4 · 2^30.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/

    Raises:
        ValueError: It is none.
    """
    if not (found := _QUANTITY.fullmatch(value)):
        raise ValueError(value)
    number, unit = float(found[1]), found[2] or ""
    if unit == "m":
        return number / 1000
    power = "kMGTPE".index(unit[0].replace("K", "k")) + 1 if unit else 0
    return float(number * (1024 if unit.endswith("i") else 1000) ** power)


def _label(value: Any) -> str:
    text = str(value)
    if text and (not re.fullmatch(_LABEL, text) or len(text) > 63):
        raise Refused(
            f"{text!r} is not a name of Kubernetes",
            "at most 63 lower-case letters, digits and '-', from a letter or digit to another",
        )
    return text


def _resources(value: Any) -> dict[str, str]:
    found = _mapping(value, "NAME=QUANTITY")
    for name, amount in found.items():
        if not _KEY.fullmatch(name):
            raise Refused(f"{name!r} is not the name of a resource", "cpu, memory, nvidia.com/gpu")
        try:
            usable = quantity(amount) > 0
        except ValueError:
            usable = False
        if not usable:
            raise Refused(
                f"{name}={amount!r} is not a quantity above 0", "for example cpu=8 or memory=64Gi"
            )
    return found


def _selector(value: Any) -> dict[str, str]:
    found = _mapping(value, "KEY=VALUE")
    for key, text in found.items():
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(text):
            raise Refused(f"{key}={text!r} is not a label", "KEY=VALUE as `kubectl get nodes -L`")
    return found


def _mapping(value: Any, form: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Refused(f"{value!r} is not {form}", f"a table of {form}")
    return {str(key): str(each) for key, each in value.items()}


def _tolerations(value: Any) -> tuple[Toleration, ...]:
    return tuple(_toleration(each) for each in _list(value))


def _toleration(value: Any) -> Toleration:
    if isinstance(value, Toleration):
        return value
    rest, _, effect = str(value).partition(":")
    key, equals, text = rest.partition("=")
    if not _KEY.fullmatch(key) or not _VALUE.fullmatch(text) or effect not in ("", *_EFFECTS):
        raise Refused(
            f"{value!r} is not KEY[=VALUE][:EFFECT]", f"EFFECT is one of {', '.join(_EFFECTS)}"
        )
    return Toleration(key, text if equals else None, effect)


def _volumes(value: Any) -> tuple[Volume, ...]:
    found = tuple(_volume(each) for each in _list(value))
    paths = [each.path for each in found]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise Refused(f"{twice[0]!r} is the path of two volumes", "another path for one of them")
    return found


def _volume(value: Any) -> Volume:
    if isinstance(value, Volume):
        return value
    claim, _, rest = str(value).partition(":")
    path, colon, mode = rest.partition(":")
    if (
        not re.fullmatch(_SUBDOMAIN, claim)
        or len(claim) > 253
        or not rest
        or (colon and mode != "ro")
    ):
        raise Refused(
            f"{value!r} is not CLAIM:/PATH or CLAIM:/PATH:ro",
            "CLAIM is the name of a PersistentVolumeClaim of the namespace",
        )
    if posixpath.normpath(path) != path or not re.fullmatch(r"/[^/].*", path):
        raise Refused(f"{value!r}: {path!r} is not an absolute path", f"for example {claim}:/data")
    if not path.isprintable() or path in _OWN_PATHS:
        raise Refused(f"{value!r}: {path!r} is taken", f"for example {claim}:/data")
    return Volume(claim, path, bool(colon))


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_TABLE = {"type": "object", "additionalProperties": _TEXT}
_AS_TEXTS = PlainSerializer(lambda each: [str(one) for one in each], return_type=list[str])

Image = Annotated[str, BeforeValidator(lambda value: image(str(value))), WithJsonSchema(_TEXT)]
Label = Annotated[str, BeforeValidator(_label), WithJsonSchema(_TEXT)]
Resources = Annotated[dict[str, str], BeforeValidator(_resources), WithJsonSchema(_TABLE)]
NodeSelector = Annotated[dict[str, str], BeforeValidator(_selector), WithJsonSchema(_TABLE)]
Tolerations = Annotated[
    tuple[Toleration, ...], BeforeValidator(_tolerations), _AS_TEXTS, WithJsonSchema(_TEXTS)
]
Volumes = Annotated[
    tuple[Volume, ...], BeforeValidator(_volumes), _AS_TEXTS, WithJsonSchema(_TEXTS)
]
