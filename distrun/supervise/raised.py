"""Ranks whose script has raised, and whose process has not ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

_PATIENCE_S = 5.0
"""How long such a rank has to end by itself; its threads may never end."""


class RaisedRanks:
    """Remembers them until they end, or their time is over."""

    def __init__(self) -> None:
        self._by_rank: dict[int, tuple[float, dict[str, Any]]] = {}

    def add(self, rank: int, report: dict[str, Any]) -> None:
        """Note the exception of a rank."""
        told = {key: report[key] for key in ("type", "file", "line", "threads")}
        self._by_rank[rank] = time.monotonic() + _PATIENCE_S, {"rank": rank, **told}

    def ended(self, rank: int) -> None:
        """Forget a rank that has ended."""
        self._by_rank.pop(rank, None)

    def due(self) -> Iterator[float]:
        """Yield the times at which the time of each is over."""
        for at, _ in self._by_rank.values():
            yield at

    def overdue(self) -> list[dict[str, Any]]:
        """Return the events for those whose time is over, each once."""
        late = [rank for rank, (at, _) in self._by_rank.items() if time.monotonic() >= at]
        return [self._by_rank.pop(rank)[1] for rank in late]
