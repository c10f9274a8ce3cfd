"""Threads that follow objects and logs on a Kubernetes server, through cuts, and tell what is new.

Source: "Efficient detection of changes" of kubernetes.io/docs/reference/using-api/api-concepts.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distrun.errors import DistrunError
from distrun.schedulers import kube_refusals
from distrun.schedulers.kube_refusals import Refusal, Unreachable
from distrun.schedulers.kube_server import Object, Server, lines_of

if TYPE_CHECKING:
    import urllib3

_SILENT_S = 60.0
"""A connection without a byte for so long is opened again: a cut cable tells nothing."""
_WATCH_S = 50
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.3, 10.0
_BACKLOG = 256
_LOOK_S = 0.2


@dataclass(frozen=True)
class Objects:
    """What is there of a kind, by name."""

    kind: str
    found: Mapping[str, Object]


@dataclass(frozen=True)
class Lines:
    """Whole lines of a log."""

    log: LogReader
    lines: list[bytes]


@dataclass(frozen=True)
class LogEnd:
    """A log has ended, or was cut."""

    log: LogReader
    error: DistrunError | None


@dataclass(frozen=True)
class Problem:
    """The server has not answered as it should; it is asked again. None: it is well again."""

    kind: str
    error: DistrunError | None


News = Objects | Lines | LogEnd | Problem


class _Reader(threading.Thread):
    """A thread that reads answers which go on.

    Args:
        news: Gets what is read; a reader waits while it is full.
    """

    def __init__(self, news: queue.Queue[News]) -> None:
        super().__init__(daemon=True)
        self._news = news
        self._stopped = threading.Event()
        self._answer: urllib3.BaseHTTPResponse | None = None

    def stop(self) -> None:
        """End it: what it waits for is cut."""
        self._stopped.set()
        if (answer := self._answer) is not None:
            try:
                answer.shutdown()
            except (OSError, RuntimeError, ValueError):
                pass  # it has just ended, or has not begun to be read

    def _put(self, news: News) -> None:
        while not self._stopped.is_set():
            try:
                self._news.put(news, timeout=_LOOK_S)
                return
            except queue.Full:
                continue


class ObjectWatch(_Reader):
    """Tells which objects of a kind there are, whenever that changes.

    Args:
        server: The server.
        api: Their apiVersion.
        kind: Their kind.
        query: labelSelector or fieldSelector.
        news: Gets `Objects` and `Problem`.
    """

    def __init__(
        self, server: Server, api: str, kind: str, query: Mapping[str, str], news: queue.Queue[News]
    ) -> None:
        super().__init__(news)
        self._server, self._api, self._kind, self._query = server, api, kind, query
        self._found: dict[str, Object] = {}
        self._version = ""
        self._has_expired = False
        """The last watch ended with 410: once that is no reason to wait."""

    def run(self) -> None:
        """List, and watch from there; after a cut watch again, after 410 list again."""
        pause_s, told = _FIRST_PAUSE_S, False
        while not self._stopped.is_set():
            try:
                if not self._version:
                    self._list()
                if told:
                    self._put(Problem(self._kind, None))
                pause_s, told = _FIRST_PAUSE_S, False
                self._watch()
                self._has_expired = False
                continue
            except Refusal as error:
                self._version = ""
                if error.status == kube_refusals.EXPIRED and not self._has_expired:
                    self._has_expired = True
                    continue
                if error.status == kube_refusals.UNAUTHORIZED:
                    self._server.log_in_again()
                wait_s = pause_s if error.retry_after_s is None else error.retry_after_s
                problem: DistrunError = error
            except Unreachable as error:
                wait_s, problem = pause_s, error
            except (AttributeError, LookupError, TypeError) as error:
                said = f"the server tells what are no {self._kind}s: {error!r}"
                wait_s, problem = pause_s, Unreachable(said, "", sent=True)
            if pause_s > _FIRST_PAUSE_S:  # once is no news
                told = True
                self._put(Problem(self._kind, problem))
            self._stopped.wait(wait_s)
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)
            self._version = ""

    def _list(self) -> None:
        items, self._version = self._server.list(self._api, self._kind, self._query)
        self._found = {each["metadata"]["name"]: each for each in items}
        self._put(Objects(self._kind, dict(self._found)))

    def _watch(self) -> None:
        began = time.monotonic()
        query = {
            **self._query,
            "watch": "true",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_S),
        }
        path = self._server.list_path(self._api, self._kind)
        what = f"{self._kind}s"
        self._answer = self._server.stream("follow", what, path, query, silent_s=_SILENT_S)
        try:
            for lines in lines_of(self._answer):
                changed = [self._take(json.loads(line)) for line in lines if line]
                if any(changed):
                    self._put(Objects(self._kind, dict(self._found)))
                if self._stopped.is_set():
                    return
        except ValueError:
            raise Unreachable("a watch has told what is not JSON", "", sent=True) from None
        finally:
            self._answer.close()
        if time.monotonic() - began < _FIRST_PAUSE_S:  # a server that ends each watch at once
            self._stopped.wait(_FIRST_PAUSE_S)

    def _take(self, event: Mapping[str, Any]) -> bool:
        """Note one event; return whether something has changed."""
        name, found = event.get("type"), event.get("object") or {}
        if name == "ERROR":
            raise self._server.watched(f"{self._kind}s", found)
        meta = found.get("metadata") or {}
        self._version = str(meta.get("resourceVersion") or self._version)
        if name in ("ADDED", "MODIFIED"):
            self._found[meta["name"]] = found
        elif name == "DELETED":
            self._found.pop(meta["name"], None)
            self._put(Objects(self._kind, {**self._found, meta["name"]: found}))  # its last state
        return name in ("ADDED", "MODIFIED", "DELETED")


class LogReader(_Reader):
    """Reads the log of a container once, to its end or to a cut.

    Args:
        server: The server.
        pod: Name of the pod.
        query: container, sinceTime, follow and so on.
        news: Gets `Lines`, and at last `LogEnd`.
    """

    def __init__(
        self, server: Server, pod: str, query: Mapping[str, str], news: queue.Queue[News]
    ) -> None:
        super().__init__(news)
        self._server, self.pod, self._query = server, pod, query

    def run(self) -> None:
        """Read it."""
        error: DistrunError | None = None
        try:
            self._answer = self._server.stream(
                "read",
                f"log of pod {self.pod}",
                self._server.log_path(self.pod),
                self._query,
                silent_s=_SILENT_S,
            )
            try:
                for lines in lines_of(self._answer):
                    self._put(Lines(self, lines))
                    if self._stopped.is_set():
                        return
            finally:
                self._answer.close()
        except (Refusal, Unreachable) as found:
            error = found
        self._put(LogEnd(self, error))


def news_queue() -> queue.Queue[News]:
    """Return a queue for the readers of one run; it holds some hundred pieces of a log."""
    return queue.Queue(_BACKLOG)
