"""Where the ranks are: requests for their stacks, and the answers."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distrun.supervise.agents import Agent

_ANSWER_S = 5.0


@dataclass(frozen=True)
class Answer:
    """What one rank has answered."""

    stacks: str = ""
    """Its stacks, as faulthandler writes them; "" if it wrote none."""
    state: str = ""
    """The state of its process: a letter of proc(5)."""
    process: Mapping[str, Any] | None = None
    """As `diagnose.hang.evidence.Process`; None if its agent does not know it."""
    flight: Mapping[str, Any] | None = None
    """Its own record of collectives; None if it keeps none."""
    age_s: float = 0.0
    """How old that is."""


class Request:
    """Waits until all live ranks have answered, or are overdue."""

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self._answers: dict[int, Answer] = {}

    def begin(self) -> None:
        """Note that the ranks are asked now."""
        self._asked_at, self._answers = time.monotonic(), {}

    def came(self, rank: int, answer: Answer) -> None:
        """Note the answer of a rank."""
        self._answers[rank] = answer

    @property
    def is_open(self) -> bool:
        """Whether an answer is awaited."""
        return self._asked_at is not None

    def answers(self, live: Collection[int]) -> dict[int, Answer] | None:
        """Return the answer of each live rank, once: when all are there, or are overdue."""
        if self._asked_at is None:
            return None
        if set(live) - self._answers.keys() and time.monotonic() < self._asked_at + _ANSWER_S:
            return None
        self._asked_at = None
        return {rank: self._answers.get(rank, Answer()) for rank in live}


class Whereabouts:
    """Where the ranks of a world are, for whoever asks, and where they were when it was stopped."""

    def __init__(self) -> None:
        self.at_stop: dict[int, Answer] = {}
        """From when the world was stopped: later its ranks are in their handlers."""
        self.of_user = Request()
        """That of `distrun stacks`."""
        self.of_stragglers = Request()
        self.of_hangs = Request()
        self.is_stopping = False
        """The ranks are stopped, or will be when they have answered."""

    def ask(self, agents: Sequence[Agent], request: Request) -> None:
        """Ask every live rank where it is, for a request."""
        request.begin()
        _ask(agents, examines=request is self.of_hangs)

    def ask_before_stop(self, agents: Sequence[Agent]) -> None:
        """Ask every live rank where it is, before it is stopped: `at_stop` has the answers."""
        self.is_stopping = True
        _ask(agents, examines=False)

    def came(self, event: Mapping[str, Any]) -> None:
        """Note the answer of a rank."""
        rank = event["rank"]
        answer = Answer(
            event["stacks"],
            event["state"],
            event.get("process"),
            event.get("answer"),
            event.get("age_s", 0.0),
        )
        if self.is_stopping:
            self.at_stop.setdefault(rank, answer)
        for request in (self.of_user, self.of_stragglers, self.of_hangs):
            request.came(rank, answer)


def told(agents: Sequence[Agent], answers: Mapping[int, Answer]) -> list[dict[str, Any]]:
    """Return who has answered, for the event that says so."""
    nodes = {rank: agent for agent in agents for rank in agent.ranks}
    return [
        {
            "rank": rank,
            "node": nodes[rank].index,
            "host": nodes[rank].host,
            "state": answer.state,
            "written": bool(answer.stacks),
            "recorded": bool(answer.flight),
        }
        for rank, answer in answers.items()
    ]


def _ask(agents: Sequence[Agent], *, examines: bool) -> None:
    for agent in agents:
        agent.send("stacks", examines=examines)
