"""Says which nodes a world waits for, until all have joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distrun.supervise.agents import Agent

_FIRST_WAITING_S, _WAITING_S = 3.0, 10.0


class Joining:
    """The time in which nodes join."""

    def __init__(self) -> None:
        self._next_s = _FIRST_WAITING_S

    def news(self, waited_s: float, agents: Sequence[Agent]) -> dict[str, Any] | None:
        """Return the event about who is missing, if it is due."""
        if waited_s < self._next_s:
            return None
        self._next_s += _WAITING_S
        return {
            "waited_s": round(waited_s),
            "joined": [agent.host for agent in agents if agent.joined],
            "missing": [f"{agent.host} ({agent.stage})" for agent in agents if not agent.joined],
        }
