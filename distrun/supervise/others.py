"""What a run waits for if the other nodes of its world supervise themselves, and are not seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

_FIRST_WAITING_S, _WAITING_S = 3.0, 10.0


class OtherNodes:
    """Says when a node waits for the others: before its ranks start, and after they have ended.

    Args:
        own_node: This node; None: every node is supervised by this run.
        host: Its name in messages.
    """

    def __init__(self, own_node: int | None, host: str) -> None:
        self._own_node = own_node
        self._host = host
        self._next_s = _FIRST_WAITING_S
        self._ended_at: float | None = None
        self._told = False

    def news(
        self, waited_s: float, unstarted: Sequence[object], ended: bool
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the events that are due.

        Args:
            waited_s: Since the node was told to start.
            unstarted: This node, if its ranks have not started.
            ended: All of them have ended with 0.
        """
        if self._own_node is None:
            return
        if unstarted and waited_s >= self._next_s:
            self._next_s += _WAITING_S
            missing = "the other nodes" if self._own_node == 0 else "node0"
            told = {"joined": [self._host], "missing": [missing]}
            yield "waiting", {"waited_s": round(waited_s), **told}
        if ended:
            self._ended_at = self._ended_at or waited_s
            if not self._told and waited_s - self._ended_at >= _FIRST_WAITING_S:
                self._told = True
                message = "the ranks of this node have ended with 0; those of others have not"
                yield "notice", {"message": message}
