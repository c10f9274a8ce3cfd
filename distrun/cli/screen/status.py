"""The status line at the bottom of a terminal."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from distrun.cli.screen.width import cut, width

_RATES = ("samples_per_s", "tokens_per_s", "images_per_s")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z])")
"""Escape sequences: colours and cursor movements."""
_LAST_NBYTES = 4096
_SEPARATOR = " · "
_LAST_WORD_COLUMNS = 32
"""The columns that a rank's last line gets before less important parts."""


class Status:
    """Keeps the newest numbers and the last output of a run, and makes one line of them."""

    def __init__(self) -> None:
        self._began_at: float | None = None
        self._joined = (0, 0)
        self._ranks_live = 0
        self._world_size = 0
        self._ranks_wanted = 0
        self._metrics: dict[str, Any] = {}
        self._first: tuple[float, int] | None = None
        self._ending = ""
        self._last_word = b""
        self._last_rank = (0, 0)
        self._bars: dict[tuple[int, int], bytes] = {}

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Handle one event."""
        name = event["event"]
        if self._began_at is None:
            self._began_at = event.get("time")
        if name == "attempt_started":
            self._joined, self._ranks_live, self._metrics = (0, event["nnodes"]), 0, {}
            self._first = None
        elif name == "node_joined":
            self._joined = (event["joined"], event["of"])
        elif name == "world_started":
            self._world_size = event["world_size"]
            self._ranks_wanted = event.get("supervised_ranks", self._world_size)
        elif name == "rank_started":
            self._ranks_live += 1
        elif name == "rank_ended":
            self._ranks_live -= 1
        elif name == "metrics":
            if self._metrics and event["rank"] > self._metrics["rank"]:
                return  # the numbers of two ranks would take turns
            self._metrics = {**event, "values": {**self._values_of(event), **event["values"]}}
            if self._first is None or event["step"] < self._first[1]:
                self._first = (event["time"], event["step"])
        elif name == "stopping":
            self._ending = "stopping"

    def _values_of(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what the same rank has reported of the same step before."""
        keys = ("rank", "step")
        same = self._metrics and all(self._metrics[key] == event[key] for key in keys)
        return self._metrics["values"] if same else {}

    def on_output(self, node: int, rank: int, block: bytes) -> None:
        """Handle lines that a rank has printed."""
        if last := block[-_LAST_NBYTES:].rstrip().rpartition(b"\n")[2]:
            self._last_word, self._last_rank = last, (node, rank)

    def on_bar(self, node: int, rank: int, bar: bytes) -> None:
        """Note the state of a rank's progress bar; b"" if it has none."""
        if self._bars.get((node, rank), b"") != bar:
            self._bars[node, rank] = bar
            self.on_output(node, rank, bar)

    def line(self, columns: int) -> str:
        """Return the line; on a narrow terminal the least important parts are left out.

        Args:
            columns: The width of the terminal.
        """
        word = self._word()
        parts = self._parts()
        room = columns - min(width(word) + len(_SEPARATOR), _LAST_WORD_COLUMNS) * bool(word)
        for spare in ("nodes", "rate", "ranks"):
            if width(_SEPARATOR.join(parts.values())) <= room:
                break
            parts.pop(spare, None)
        line = _SEPARATOR.join(parts.values())
        left = columns - width(line) - len(_SEPARATOR)
        return cut(line + _SEPARATOR + cut(word, left) if word and left > 1 else line, columns)

    def _word(self) -> str:
        text = _ESCAPE.sub("", self._last_word.decode(errors="replace")).strip()
        node, rank = self._last_rank
        return f"[{node}·{rank}] {text}" if text and self._world_size > 1 else text

    def _parts(self) -> dict[str, str]:
        """Return the parts in their order; those that report no problem may be left out."""
        parts = {}
        if self._began_at is not None:
            parts["time"] = _clock(time.time() - self._began_at)
        joined, nnodes = self._joined
        if nnodes:
            parts["nodes" if joined == nnodes else "missing nodes"] = f"nodes {joined}/{nnodes}"
        else:
            parts["starting"] = "starting"
        if self._world_size:
            live = f"ranks {self._ranks_live}/{self._ranks_wanted}"
            parts["ranks" if self._ranks_live == self._ranks_wanted else "missing ranks"] = live
        parts |= self._training()
        if self._ending:
            parts["ending"] = self._ending
        return parts

    def _training(self) -> dict[str, str]:
        numbers = self._metrics
        if not numbers:
            return {}
        step, total = numbers["step"], numbers.get("total_steps")
        parts = {"step": f"step {step}/{total}" if total else f"step {step}"}
        values = numbers["values"]
        if "loss" in values:
            loss = values["loss"]
            is_number = isinstance(loss, (int, float))
            parts["loss"] = f"loss {loss:.4g}" if is_number else f"loss {loss}"
        for name in _RATES:
            if isinstance(rate := values.get(name), (int, float)):
                parts["rate"] = f"{rate:.0f} {name.removesuffix('_per_s')}/s"
        if total and self._first and step > self._first[1]:
            pace = (numbers["time"] - self._first[0]) / (step - self._first[1])
            left_s = (total - step) * pace - (time.time() - numbers["time"])
            parts["left"] = f"ETA {_clock(left_s)}"
        return parts


def _clock(seconds: float) -> str:
    """Return `0:42`, `3:07` or `2:03:07`."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
