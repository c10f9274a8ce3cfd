"""A Kubernetes API server for tests: kmock's real HTTP server, with logs, cuts and refusals.

kmock keeps the objects and serves create, list, watch, patch and delete. What it lacks is here:
uids, the logs of pods, and answers that go wrong. No controller runs: tests say what one would do.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import aiohttp.web
import attrs
import kmock

RESOURCES = (
    *("v1/pods", "v1/services", "v1/secrets", "v1/configmaps", "v1/events", "batch/v1/jobs"),
    *("networking.k8s.io/v1/networkpolicies", "jobset.x-k8s.io/v1alpha2/jobsets"),
    "trainer.kubeflow.org/v1alpha1/trainjobs",
)
BEGIN_NS = 1_790_000_000 * 10**9


@dataclass
class Fault:
    """An answer in place of the right one, some times."""

    match: str
    """Pattern of METHOD PATH?QUERY."""
    status: int = 500
    reason: str = ""
    message: str = ""
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """The answer's body; None: a Status."""
    cut: bool = False
    """Do what is asked, and cut the connection without an answer."""


@dataclass
class Log:
    """What a container has printed: each line after its time, as the kubelet has it."""

    lines: list[bytes] = field(default_factory=list)
    closed: bool = False
    cuts: list[int] = field(default_factory=list)
    """After so many bytes the connection is cut, for one reader after the other."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """The parameters of each reader."""

    def add(self, text: str | bytes, *, at_ns: int | None = None) -> None:
        """Add a line; by default a tenth of a second after the one before."""
        at_ns = BEGIN_NS + len(self.lines) * 10**8 if at_ns is None else at_ns
        data = text.encode() if isinstance(text, str) else text
        self.lines.append(rfc3339(at_ns).encode() + b" " + data + b"\n")


def rfc3339(at_ns: int) -> str:
    seconds, rest = divmod(at_ns, 10**9)
    text = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09d}".rstrip("0").rstrip(".") + "Z"


@attrs.define(kw_only=True)
class Emulator(kmock.KubernetesEmulator):
    """kmock's, with the above."""

    faults: list[Fault] = attrs.field(factory=list)
    logs: dict[str, Log] = attrs.field(factory=dict)
    asked: list[str] = attrs.field(factory=list)
    changed: set[str] = attrs.field(factory=set)
    """Paths of lists of which an object was deleted since they were last asked for."""
    transports: list[Any] = attrs.field(factory=list)
    made: int = 0

    async def _handle(self, request: Any) -> aiohttp.web.StreamResponse:
        line = f"{request.method.value.upper()} {request.url.path_qs}"
        self.asked.append(line)
        self.transports.append(request._raw_request.transport)
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.match, line):
                fault.times -= 1
                return await self._fail(fault, request)
        if (gone := self._is_expired(request)) is not None:
            return await self._fail(gone, request)
        if pod := re.search(r"/pods/([^/]+)/log$", request.url.path):
            if pod[1] not in self.logs:
                return await self._fail(Fault("", 404, "NotFound", "no such pod"), request)
            return await self._serve_log(request, self.logs[pod[1]])
        if request.method.value.lower() == "post" and isinstance(request.data, dict):
            self.made += 1
            meta = request.data["metadata"]
            meta["namespace"] = request.namespace
            meta.setdefault("uid", f"uid-{self.made}")
            meta.setdefault("creationTimestamp", rfc3339(BEGIN_NS + self.made * 10**9))
        return await super()._handle(request)  # type: ignore[no-any-return]

    def _is_expired(self, request: Any) -> Fault | None:
        """Return 410 for a watch that would miss a deletion: kmock keeps no history."""
        method, path = request.method.value.upper(), request.url.path
        if method == "DELETE":
            self.changed.add(path.rpartition("/")[0])
        elif request.url.query.get("watch") == "true" and path in self.changed:
            return Fault("", 410, "Expired", "too old resource version")
        elif method == "GET":
            self.changed.discard(path)
        return None

    async def _fail(self, fault: Fault, request: Any) -> aiohttp.web.StreamResponse:
        if fault.cut:
            answer = await self._handle(request)
            request._raw_request.transport.abort()
            return answer
        if fault.body is not None:
            return aiohttp.web.Response(body=fault.body, status=fault.status, headers=fault.headers)
        status = {
            "kind": "Status",
            "code": fault.status,
            "reason": fault.reason,
            "message": fault.message,
        }
        return aiohttp.web.json_response(status, status=fault.status, headers=fault.headers)

    async def _serve_log(self, request: Any, log: Log) -> aiohttp.web.StreamResponse:
        asked = dict(request.url.query)
        log.asked.append(asked)
        raw = request._raw_request
        answer = aiohttp.web.StreamResponse()
        answer.enable_chunked_encoding()
        await answer.prepare(raw)
        left = log.cuts.pop(0) if log.cuts else None
        sent = 0
        while True:
            while sent < len(log.lines):
                line, sent = log.lines[sent], sent + 1
                if line[:19].decode() + "Z" < asked.get("sinceTime", ""):
                    continue
                if left is not None and len(line) >= left:
                    await answer.write(line[:left])
                    await asyncio.sleep(0.05)  # so that it is sent
                    raw.transport.abort()
                    return answer
                left = left - len(line) if left is not None else None
                await answer.write(line)
            if log.closed or asked.get("follow") != "true":
                await answer.write_eof()
                return answer
            await asyncio.sleep(0.01)


class ApiServer:
    """The server, in a thread; and what a cluster would do, by hand."""

    def __init__(self, place: Path) -> None:
        self.emulator = Emulator()
        self.url = ""
        self._place = place

    @property
    def logs(self) -> dict[str, Log]:
        return self.emulator.logs

    @property
    def asked(self) -> list[str]:
        """METHOD PATH of all requests."""
        return self.emulator.asked

    def fail(self, match: str, **what: Any) -> None:
        """Have requests that match go wrong."""
        self.emulator.faults.append(Fault(match, **what))

    def kubeconfig(self, *, server: str = "", namespace: str = "ml") -> Path:
        """Write a kubeconfig with two contexts, `test` and `other`."""
        cluster = {"name": "c", "cluster": {"server": server or self.url}}
        context = {"cluster": "c", "user": "u", "namespace": namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [cluster],
            "users": [{"name": "u", "user": {"token": "secret-token"}}],
            "contexts": [{"name": name, "context": context} for name in ("test", "other")],
        }
        path = self._place / "kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def names(self, plural: str) -> list[str]:
        """Return the names of the objects that are there."""
        api = "api/v1" if plural in ("secrets", "services", "pods") else "apis/batch/v1"
        found = self._ask("GET", f"/{api}/namespaces/ml/{plural}")
        return [each["metadata"]["name"] for each in found["items"]]

    def add(self, path: str, found: dict[str, Any]) -> None:
        """Create an object."""
        self._ask("POST", path, found)

    def change(self, path: str, found: dict[str, Any]) -> None:
        """Merge into an object."""
        self._ask("PATCH", path, found)

    def delete(self, path: str) -> None:
        """Delete an object."""
        self._ask("DELETE", path)

    def object(self, path: str) -> Any:
        """Return an object."""
        return self._ask("GET", path)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/merge-patch+json"} if data else {}
        asked = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return json.loads(answer.read())

    async def serve(self, ready: Callable[[], None], end: threading.Event) -> None:
        for name in RESOURCES:
            self.emulator.resources[name] = {}
        async with self.emulator, kmock.Server(self.emulator) as server:
            self.url = str(server.url).rstrip("/")
            ready()
            while not end.is_set():
                await asyncio.sleep(0.02)
            for transport in self.emulator.transports:
                if transport is not None:
                    transport.abort()


@contextmanager
def api_server(place: Path) -> Iterator[ApiServer]:
    """Yield a server that has started."""
    server = ApiServer(place)
    ready, end = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(ready.set, end)))
    thread.start()
    try:
        assert ready.wait(20)
        yield server
    finally:
        end.set()
        thread.join(20)
    assert not thread.is_alive()
