"""The live line at the bottom of a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

_RATES = ("samples_per_s", "tokens_per_s", "images_per_s")


class Status:
    """Keeps the newest numbers of a run and puts them into one line."""

    def __init__(self) -> None:
        self._nodes = ""
        self._ranks_live = 0
        self._world_size = 0
        self._metrics: dict[str, Any] = {}
        self._first: tuple[float, int] | None = None
        self._ending = ""

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Take one event."""
        name = event["event"]
        if name == "attempt_started":
            self._nodes, self._ranks_live, self._metrics = f"0/{event['nnodes']}", 0, {}
            self._first = None
        elif name == "node_joined":
            self._nodes = f"{event['joined']}/{event['of']}"
        elif name == "world_started":
            self._world_size = event["world_size"]
        elif name == "rank_started":
            self._ranks_live += 1
        elif name == "rank_ended":
            self._ranks_live -= 1
        elif name == "metrics":
            self._metrics = dict(event)
            if self._first is None or event["step"] < self._first[1]:
                self._first = (event["time"], event["step"])
        elif name == "stopping":
            self._ending = "stopping"

    def line(self) -> str:
        """Return the line."""
        parts = [f"nodes {self._nodes}" if self._nodes else "starting"]
        if self._world_size:
            parts.append(f"ranks {self._ranks_live}/{self._world_size}")
        parts += self._training()
        if self._ending:
            parts.append(self._ending)
        return " · ".join(parts)

    def _training(self) -> list[str]:
        numbers = self._metrics
        if not numbers:
            return []
        step, total = numbers["step"], numbers.get("total_steps")
        parts = [f"step {step}/{total}" if total else f"step {step}"]
        values = numbers["values"]
        if "loss" in values:
            loss = values["loss"]
            parts.append(f"loss {loss:.4g}" if isinstance(loss, (int, float)) else f"loss {loss}")
        for name in _RATES:
            if isinstance(rate := values.get(name), (int, float)):
                parts.append(f"{rate:.0f} {name.removesuffix('_per_s')}/s")
        if total and self._first and step > self._first[1]:
            pace = (numbers["time"] - self._first[0]) / (step - self._first[1])
            left = max(0.0, (total - step) * pace - (time.time() - numbers["time"]))
            parts.append(f"ETA {int(left) // 60}:{int(left) % 60:02d}")
        return parts
