"""A job as Kubernetes has it: what is submitted, and what its controllers would make of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distrun.api import runs
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from tests.process.kubernetes_server import ApiServer, Log

Event = dict[str, Any]
NAME = "train-1a2b"
JOB = f"/apis/batch/v1/namespaces/ml/jobs/{NAME}"
PODS = "/api/v1/namespaces/ml/pods"
RUN_ID = "20261129-130000-train-1a2b"


def objects(nodes: int = 2) -> list[dict[str, Any]]:
    """Return an Indexed Job with what belongs to it, in the order of creation."""
    meta = {"name": NAME, "labels": {"app": "distrun"}}
    container = {"name": "distrun", "image": "img:1"}
    spec = {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
    }
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"k": "v"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"clusterIP": "None"}},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec},
    ]


def a_record(**changed: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "run_id": RUN_ID,
        "recipe": "train.py",
        "nnodes": 2,
        "nproc_per_node": 0,
        "started_at": round(time.time(), 3),
        "plan": {"grace_s": 5.0},
        **changed,
    }
    return RunRecord(**fields)


def pod(index: int, status: dict[str, Any], *, again: str = "") -> dict[str, Any]:
    """Return a pod of the job with the labels that Kubernetes sets."""
    labels = {
        "batch.kubernetes.io/job-name": NAME,
        "batch.kubernetes.io/job-completion-index": str(index),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{NAME}-{index}-x{again}", "labels": labels},
        "spec": {"containers": [{"name": "distrun", "image": "img:1"}]},
        "status": status,
    }


def running() -> dict[str, Any]:
    return {"phase": "Running", "containerStatuses": [_container({"running": {}})]}


def ended(code: int, reason: str = "Error", **more: Any) -> dict[str, Any]:
    phase = "Failed" if code else "Succeeded"
    state = {"terminated": {"exitCode": code, "reason": reason}}
    return {"phase": phase, "containerStatuses": [_container(state)], **more}


def waits(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    scheduled = [{"type": "PodScheduled", "status": "True"}]
    found = {"containerStatuses": [_container(state)], "conditions": scheduled}
    return {"phase": "Pending", **found}


def _container(state: dict[str, Any]) -> dict[str, Any]:
    return {"name": "distrun", "restartCount": 0, "state": state}


def decided(kind: str, reason: str = "", message: str = "") -> dict[str, Any]:
    found = {"type": kind, "status": "True", "reason": reason, "message": message}
    return {"status": {"conditions": [found]}}


class Cluster:
    """Does by hand what the controllers of Kubernetes would do with the job."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def start(self, again: str = "") -> Log:
        """Start both pods; return the log of the first."""
        for index in (0, 1):
            made = pod(index, running(), again=again)
            self._server.logs[made["metadata"]["name"]] = Log()
            self._server.add(PODS, made)
        return self._server.logs[f"{NAME}-0-x{again}"]

    def set(self, index: int, status: dict[str, Any], again: str = "") -> None:
        """Set the status of a pod."""
        self._server.change(f"{PODS}/{NAME}-{index}-x{again}", {"status": status})

    def end(self, code: int, kind: str = "", again: str = "", **decision: str) -> None:
        """End both pods with a code, and decide on the job."""
        for index in (0, 1):
            self._server.logs[f"{NAME}-{index}-x{again}"].closed = True
            self.set(index, ended(code), again)
        self._server.change(JOB, decided(kind or ("Failed" if code else "Complete"), **decision))


def lines_of(*events: dict[str, Any], begin: int = 1) -> list[str]:
    """Return events as `launch --json` prints them."""
    return [json.dumps({**event, "seq": seq}) for seq, event in enumerate(events, begin)]


def a_run(code: int = 0, lines: int = 3) -> list[dict[str, Any]]:
    """Return the events of a small run of two ranks on two nodes."""
    told: dict[str, Any] = {
        "outcome": "failed" if code else "succeeded",
        "exit_code": code,
        "summary": "rank 1 on node1 failed first: ValueError" if code else "every rank ended",
        "hint": "",
        "duration_s": 1.5,
        "attempts": 1,
        "verdict": {"rank": 1, "node": 1} if code else None,
    }
    output = [
        {
            "event": "output",
            "time": 1_790_000_000.0 + i,
            "node": i % 2,
            "rank": i % 2,
            "stream": "stdout",
            "line": f"line {i}",
        }
        for i in range(lines)
    ]
    at = {"time": 1_790_000_000.0}
    return [
        {"event": "run", **at, "nnodes": 2, "nproc_per_node": 1, "plan": {}, "versions": {}},
        {"event": "attempt_started", **at, "attempt": 0, "nnodes": 2},
        {"event": "world_started", **at, "nnodes": 2, "world_size": 2},
        *({"event": "rank_started", **at, "node": n, "rank": n, "pid": 7 + n} for n in (0, 1)),
        *output,
        {"event": "ended", "time": 1_790_000_009.0, **told},
    ]


def log_of(run: Path, node: int) -> str:
    return (run / "logs" / f"node{node}" / f"rank{node}.log").read_text()


class Follower:
    """Follows a run in a thread."""

    def __init__(self, run: RunDirectory) -> None:
        self.events: list[Event] = []
        self._run = run
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        for event in runs.events(self._run, follow=True):
            if event:
                with self._news:
                    self.events.append(event)
                    self._news.notify_all()

    def until(self, holds: Callable[[list[Event]], bool]) -> None:
        with self._news:
            assert self._news.wait_for(lambda: holds(self.events), 20), self.events

    def to_end(self) -> Event:
        self._thread.join(30)
        assert not self._thread.is_alive(), self.events
        return self.events[-1]

    def words(self, kind: str = "job") -> list[str]:
        key = "message" if kind == "job" else "line"
        return [event[key] for event in self.events if event["event"] == kind]
