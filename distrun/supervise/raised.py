"""Ranks whose script has ended with an exception, and whose process has not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

_PATIENCE_S = 5.0
"""What such a rank has to end by itself; threads of it may have no end."""


class RaisedRanks:
    """Remembers them until they end, or have had their time."""

    def __init__(self) -> None:
        self._by_rank: dict[int, tuple[float, dict[str, Any]]] = {}

    def add(self, rank: int, report: dict[str, Any]) -> None:
        """Note what a rank has raised."""
        told = {key: report[key] for key in ("type", "file", "line", "threads")}
        self._by_rank[rank] = time.monotonic() + _PATIENCE_S, {"rank": rank, **told}

    def ended(self, rank: int) -> None:
        """Forget a rank that has ended."""
        self._by_rank.pop(rank, None)

    def due(self) -> Iterator[float]:
        """Yield when the time of each is over."""
        for at, _ in self._by_rank.values():
            yield at

    def overdue(self) -> list[dict[str, Any]]:
        """Return, once, what is to be told of those whose time is over."""
        late = [rank for rank, (at, _) in self._by_rank.items() if time.monotonic() >= at]
        return [self._by_rank.pop(rank)[1] for rank in late]
