"""Progress of a run for the status of its TrainJob, where Kubeflow Trainer offers it to the pod.

Source: KEP-2779 of kubeflow/trainer, and the field trainerStatus of its TrainJob (v1alpha1).
"""

from __future__ import annotations

import json
import math
import os
import queue
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

URL, TOKEN, CA = (f"KUBEFLOW_TRAINER_SERVER_{name}" for name in ("URL", "TOKEN", "CA_CERT"))
_EVERY_S = 10.0
_TIMEOUT_S = 5.0
_MOST, _LONGEST = 256, 64
"""Metrics in one status, and characters of a name or value."""


class TrainJobProgress:
    """Sends percentage, time left and the last metrics of rank 0, in a thread.

    A server that refuses or is away changes nothing for the run.

    Args:
        environ: Names the server; without its variables nothing is sent.
        every_s: Send at most so often.
    """

    def __init__(
        self, environ: Mapping[str, str] = os.environ, *, every_s: float = _EVERY_S
    ) -> None:
        self._url, self._token, self._ca = (environ.get(name, "") for name in (URL, TOKEN, CA))
        self._every_s = every_s
        self._begun: tuple[float, int] | None = None
        """Time and step of the first record."""
        self._last: dict[str, Any] = {}
        self._send_at = 0.0
        self._to_send: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._thread: threading.Thread | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """Note an event of the run."""
        if not self._url or event.get("event") != "metrics" or event.get("rank") != 0:
            return
        self._last = _status(event, self._begun)
        if self._begun is None:
            self._begun = (float(event["time"]), int(event["step"]))
        if time.monotonic() >= self._send_at:
            self._send_at = time.monotonic() + self._every_s
            self._send(self._last)

    def end(self, exit_code: int) -> None:
        """Send the last status, if the server answers soon."""
        if not self._last:
            return
        if exit_code == 0:
            self._last |= {"progressPercentage": 100, "estimatedRemainingSeconds": 0}
        self._send(self._last)
        self._to_send.put(None)
        if self._thread is not None:
            self._thread.join(_TIMEOUT_S)

    def _send(self, status: dict[str, Any]) -> None:
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._to_send.put({"trainerStatus": {**status, "lastUpdatedTime": now}})
        if self._thread is None:
            self._thread = threading.Thread(target=self._post_all, daemon=True)
            self._thread.start()

    def _post_all(self) -> None:
        while (body := self._to_send.get()) is not None:
            try:
                self._post(body)
            except (OSError, ValueError):
                continue  # the server is away, or the token is not there: the next one may come

    def _post(self, body: dict[str, Any]) -> None:
        import ssl
        import urllib.request  # no other launch pays for it

        token = Path(self._token).read_text().strip()  # it is changed while the pod runs
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = json.dumps(body).encode()
        request = urllib.request.Request(self._url, data, headers, method="POST")
        context = ssl.create_default_context(cafile=self._ca or None)
        handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S) as answer:
            answer.read()


def _status(event: Mapping[str, Any], begun: tuple[float, int] | None) -> dict[str, Any]:
    """Return the status after one record of rank 0."""
    found: dict[str, Any] = {"metrics": _metrics(event["values"])}
    step, total = int(event["step"]), event["total_steps"]
    if not isinstance(total, int) or total <= 0:
        return found
    found["progressPercentage"] = max(0, min(100, 100 * step // total))
    if begun is not None and step > begun[1]:
        per_step = max(0.0, float(event["time"]) - begun[0]) / (step - begun[1])
        found["estimatedRemainingSeconds"] = round(max(0, total - step) * per_step)
    return found


def _metrics(values: Mapping[str, Any]) -> list[dict[str, str]]:
    known = {
        name: value
        for name, value in values.items()
        if isinstance(value, (int, float)) and math.isfinite(value) and name
    }
    return [
        {"name": str(name)[:_LONGEST], "value": f"{value:.8g}"}
        for name, value in list(known.items())[:_MOST]
    ]
