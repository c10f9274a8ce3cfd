"""A Kubernetes API server, spoken to through the official client (PyPI kubernetes).

The client brings credentials, TLS and proxies; objects are plain dicts, so that one way serves Job,
JobSet and TrainJob. Endpoints: kubernetes.io/docs/reference/using-api/api-concepts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from distrun.schedulers import kube_refusals
from distrun.schedulers.kube_access import Access, client_of
from distrun.schedulers.kube_refusals import Asked, Refusal, Silent, Unreachable

if TYPE_CHECKING:
    import urllib3

T = TypeVar("T")
Object = Mapping[str, Any]
_PLURALS = {"NetworkPolicy": "networkpolicies"}
_CONNECT_S, _READ_S = 5.0, 20.0
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
_MERGE = "application/merge-patch+json"
APIS = {
    "job": ("batch/v1", "Job"),
    "jobset": ("jobset.x-k8s.io/v1alpha2", "JobSet"),
    "trainjob": ("trainer.kubeflow.org/v1alpha1", "TrainJob"),
}
"""Kind of a job, as in --kind -> apiVersion and kind."""


class Server:
    """One server, namespace and user; may be used by several threads.

    Args:
        access: Which.

    Raises:
        UsageError: The kubeconfig or the context cannot be used.
        MachineError: The client is not installed.
    """

    def __init__(self, access: Access) -> None:
        self._client, self.access = client_of(access)
        self._host = str(self._client.configuration.host)

    def create(self, found: Object) -> Object:
        """Create an object, and return it as the server has it.

        Raises:
            Refusal: The server has refused it.
            Unreachable: There is no answer; `sent` tells whether it may have been created.
        """
        api, kind, name = found["apiVersion"], found["kind"], found["metadata"]["name"]
        path = self._path(api, kind)
        return self._json("create", kind, name, api, "POST", path, body=found)

    def read(self, api: str, kind: str, name: str) -> Object:
        """Return an object; the errors are those of `create`."""
        return self._json("read", kind, name, api, "GET", self._path(api, kind, name))

    def delete(self, api: str, kind: str, name: str, **options: Any) -> None:
        """Delete an object; one that is gone already is no error.

        Args:
            api: Its apiVersion.
            kind: Its kind.
            name: Its name.
            options: Of DeleteOptions, such as propagationPolicy.
        """
        try:
            path = self._path(api, kind, name)
            self._json("delete", kind, name, api, "DELETE", path, body=dict(options))
        except Refusal as error:
            if error.status != kube_refusals.GONE:
                raise

    def own(self, found: Object, owner: Object) -> None:
        """Have an object deleted with its owner."""
        api, kind, name = found["apiVersion"], found["kind"], found["metadata"]["name"]
        patch = {"metadata": {"ownerReferences": [reference_to(owner)]}}
        path = self._path(api, kind, name)
        self._json("patch", kind, name, api, "PATCH", path, body=patch, content=_MERGE)

    def list(self, api: str, kind: str, query: Mapping[str, str]) -> tuple[list[Object], str]:
        """Return objects, and the version from which a watch goes on."""
        what = f"{kind}s"
        found = self._json("list", what, "", api, "GET", self._path(api, kind), query)
        items = found.get("items")
        version = str((found.get("metadata") or {}).get("resourceVersion", ""))
        return items if isinstance(items, list) else [], version

    def stream(
        self, asked: str, what: str, path: str, query: Mapping[str, str], *, silent_s: float
    ) -> urllib3.BaseHTTPResponse:
        """Open an answer that goes on; see `lines_of`.

        Args:
            asked: The verb, for errors.
            what: What is read, for errors.
            path: Of the endpoint.
            query: Its parameters.
            silent_s: After so long without a byte the connection counts as cut.

        Raises:
            Refusal: The server has refused it.
            Unreachable: There is no answer.
        """
        return self._send(self._asked(asked, what, "v1"), "GET", path, query, None, silent_s)

    def log_path(self, pod: str) -> str:
        """Return the path of the log of a pod."""
        return self._path("v1", "Pod", pod) + "/log"

    def list_path(self, api: str, kind: str) -> str:
        """Return the path of all objects of a kind."""
        return self._path(api, kind)

    def watched(self, what: str, status: Mapping[str, Any]) -> Refusal:
        """Return the refusal that a watch has told in place of an object."""
        return kube_refusals.of_status(self._asked("follow", what, "v1"), status)

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def _path(self, api: str, kind: str, name: str = "") -> str:
        root = f"/api/{api}" if "/" not in api else f"/apis/{api}"
        plural = _PLURALS.get(kind, kind.lower() + "s")
        path = f"{root}/namespaces/{self.access.namespace}/{plural}"
        return f"{path}/{name}" if name else path

    def _asked(self, verb: str, what: str, api: str) -> Asked:
        return Asked(verb, what, api, self.access.namespace, self.access.context, self._host)

    def _json(
        self,
        verb: str,
        kind: str,
        name: str,
        api: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Any = None,
        content: str = "application/json",
    ) -> Object:
        asked = self._asked(verb, f"{kind} {name}".strip(), api)
        answer = self._send(asked, method, path, query or {}, body, _READ_S, content)
        try:
            found = json.loads(self._whole(answer))
        except (ValueError, RecursionError):
            raise Unreachable(
                f"what answers at {self._host} is not a Kubernetes server: it sends no JSON",
                "is the server of the context right, or a proxy in between?",
                sent=True,
                passes=False,
            ) from None
        return found if isinstance(found, dict) else {}

    def _send(
        self,
        asked: Asked,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any,
        read_s: float,
        content: str = "application/json",
    ) -> urllib3.BaseHTTPResponse:
        import urllib3
        from kubernetes.client.exceptions import ApiException

        headers = {"Accept": "application/json, */*", "Content-Type": content}
        try:
            sent = self._client.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = self._client.call_api(*sent, _request_timeout=(_CONNECT_S, read_s)).response
        except ApiException as error:  # the client tells of TLS in this way, with status 0
            raise _no_tls(self._host, str(error.reason)) from None
        except urllib3.exceptions.HTTPError as error:
            raise _no_answer(self._host, error) from None
        if not 200 <= answer.status <= 299:
            raise kube_refusals.refusal(asked, answer.status, answer.headers, self._whole(answer))
        return answer

    def _whole(self, answer: urllib3.BaseHTTPResponse) -> bytes:
        import urllib3

        try:
            return bytes(answer.data)
        except urllib3.exceptions.HTTPError as error:
            raise _no_answer(self._host, error) from None
        finally:
            answer.release_conn()


def reference_to(owner: Object) -> dict[str, Any]:
    """Return the owner reference by which an object is deleted with another one."""
    meta = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta["name"],
        "uid": meta.get("uid", ""),
    }


def lines_of(answer: urllib3.BaseHTTPResponse) -> Iterator[list[bytes]]:
    """Yield the whole lines of an answer, as they come; what is torn at the end is left out.

    Raises:
        Unreachable: It was cut.
        Silent: It has told nothing for long.
    """
    import urllib3

    rest = b""
    try:
        for data in answer.stream(1 << 16):
            *lines, rest = (rest + data).split(b"\n")
            if lines:
                yield lines
    except urllib3.exceptions.ReadTimeoutError:
        raise Silent("the connection is silent", "", sent=True) from None
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise Unreachable(f"the connection was cut: {error}", "", sent=True) from None
    if rest:
        yield [rest]


def patiently(ask: Callable[[], T], patience_s: float, *, creates: bool = False) -> T:
    """Ask, and ask again while the server is busy or away.

    Args:
        ask: Does it.
        patience_s: For how long.
        creates: Do not ask again if it may have been done.

    Raises:
        Refusal: The server has refused it.
        Unreachable: There is no answer.
    """
    deadline, pause_s = time.monotonic() + patience_s, _PAUSE_S
    while True:
        try:
            return ask()
        except Refusal as error:
            passes = error.status in (kube_refusals.NOT_DONE if creates else kube_refusals.RETRIED)
            wait_s = error.retry_after_s if error.retry_after_s is not None else pause_s
            if not passes or time.monotonic() + wait_s > deadline:
                raise
        except Unreachable as error:
            wait_s = pause_s
            if not error.passes or (creates and error.sent):
                raise
            if time.monotonic() + wait_s > deadline:
                raise
        time.sleep(wait_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _no_tls(host: str, reason: str) -> Unreachable:
    return Unreachable(
        f"the Kubernetes server {host} cannot be trusted: {reason.splitlines()[-1]}",
        "certificate-authority of its cluster in the kubeconfig has to be the one that signed it",
        sent=False,
        passes=False,
    )


def _no_answer(host: str, error: Exception) -> Unreachable:
    import urllib3

    before = (
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        urllib3.exceptions.ProxyError,
        urllib3.exceptions.LocationParseError,
    )
    why = str(error).rpartition(": ")[2] or type(error).__name__
    return Unreachable(
        f"the Kubernetes server {host} is not to be reached: {why}",
        "is the network (VPN) up, and the server of the context right? `kubectl cluster-info` asks",
        sent=not isinstance(error, before),
    )
