"""What a Kubernetes API server's refusals mean, as sentences with a cure.

Sources: "API Concepts" and "Status" of kubernetes.io/docs/reference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distrun.errors import ExitCode, MachineError

RETRIED = (429, 500, 502, 503, 504)
"""What may pass by itself."""
NOT_DONE = (429, 503)
"""After these nothing was done, so that a creation may be sent again."""
PERHAPS_DONE = (500, 502, 504)
"""After these it is not known."""
GONE, EXPIRED, CONFLICT, FORBIDDEN, UNAUTHORIZED = 404, 410, 409, 403, 401


@dataclass(frozen=True)
class Asked:
    """What the server was asked for."""

    verb: str
    """create, read, list, follow, delete or patch."""
    what: str
    """Such as `Job train-1`."""
    api: str
    """Such as batch/v1."""
    namespace: str
    context: str
    host: str


class Refusal(MachineError):
    """The server has answered, and not done it.

    Args:
        asked: What it was asked for.
        status: The HTTP status.
        reason: The reason in the answer, such as AlreadyExists.
        told: The server's own message.
        retry_after_s: When to ask again, if it says that.
    """

    def __init__(
        self, asked: Asked, status: int, reason: str, told: str, retry_after_s: float | None
    ) -> None:
        message, hint, code = _explained(asked, status, told)
        super().__init__(message, hint)
        self.status, self.reason, self.told = status, reason, told
        self.retry_after_s = retry_after_s
        self.exit_code = code


class Unreachable(MachineError):
    """No whole answer has come.

    Args:
        message: As of every error.
        hint: As of every error.
        sent: Whether the server may have got the request.
        passes: Whether it may pass by itself.
    """

    def __init__(self, message: str, hint: str, *, sent: bool, passes: bool = True) -> None:
        super().__init__(message, hint)
        self.sent = sent
        self.passes = passes


class Silent(Unreachable):
    """An answer that goes on has told nothing for long: nothing is new, or the cable is cut."""


def refusal(asked: Asked, status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """Return the refusal in an answer.

    Args:
        asked: What was asked for.
        status: The HTTP status.
        headers: Of the answer.
        body: Of the answer: a Status as JSON, or what a proxy says.
    """
    found = _status(body)
    told = str(found.get("message") or body[:500].decode(errors="replace")).strip()
    wait = headers.get("Retry-After", "")
    details = found.get("details") if isinstance(found.get("details"), dict) else {}
    named = details.get("retryAfterSeconds") if details else None
    wait_s = float(wait) if wait.isdecimal() else float(named) if type(named) is int else None
    return Refusal(asked, status, str(found.get("reason") or ""), told, wait_s)


def of_status(asked: Asked, status: Mapping[str, Any]) -> Refusal:
    """Return the refusal that a watch tells in place of an object."""
    code = status.get("code")
    told = str(status.get("message") or "")
    return Refusal(asked, code if type(code) is int else 500, str(status.get("reason")), told, None)


def _status(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _explained(asked: Asked, status: int, told: str) -> tuple[str, str, ExitCode]:
    """Return message, hint and exit code."""
    at, said = f"the Kubernetes server {asked.host}", f": {told}" if told else ""
    place = f"{asked.what} in namespace {asked.namespace!r}"
    if status == UNAUTHORIZED:
        return (
            f"{at} does not accept the credentials of context {asked.context!r}{said}",
            "log in again; `kubectl auth whoami` tries them",
            ExitCode.MACHINE,
        )
    if status == FORBIDDEN:
        quota = "quota" in told
        return (
            f"{at} does not let you {asked.verb} {place}{said}",
            f"`kubectl describe quota -n {asked.namespace}` shows what is left"
            if quota
            else f"`kubectl auth can-i --list -n {asked.namespace}` shows what you may do;"
            " --namespace names another one",
            ExitCode.MACHINE,
        )
    if status == GONE:
        return (*_not_there(asked, at, place, told), ExitCode.USAGE)
    if status == CONFLICT and asked.verb == "create":
        return (
            f"{place} exists already",
            "another name, or `kubectl delete` it first",
            ExitCode.USAGE,
        )
    if status in (400, 409, 413, 422):
        return (
            f"{at} refuses to {asked.verb} {place}{said}",
            "--dry-run prints what is sent",
            ExitCode.USAGE,
        )
    if status == 429:
        return (f"{at} is busy (429){said}", "try again in a minute", ExitCode.MACHINE)
    if status >= 500:
        return (
            f"{at} has failed to {asked.verb} {place} ({status}){said}",
            "try again in a minute; `kubectl get --raw /readyz` asks whether it is well",
            ExitCode.MACHINE,
        )
    return (f"{at} has answered {status} to: {asked.verb} {place}{said}", "", ExitCode.MACHINE)


def _not_there(asked: Asked, at: str, place: str, told: str) -> tuple[str, str]:
    if told.startswith("namespaces "):
        return (
            f"namespace {asked.namespace!r} is not there",
            f"--namespace names another one, or: kubectl create namespace {asked.namespace}",
        )
    if asked.verb in ("create", "list") and asked.api not in ("v1", "batch/v1"):
        return (
            f"{at} does not know {asked.what.partition(' ')[0]} ({asked.api})",
            "its controller has to be installed there; --kind job needs none",
        )
    return (f"{place} is not there", "`kubectl get` shows what is there")
