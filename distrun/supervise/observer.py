"""The supervisor's pipes to the launcher, if it still runs: events out, commands in.

A full pipe never delays a run: what does not fit is kept up to a limit. Then the numbers of
training steps are dropped first, because metrics.jsonl has them.
"""

from __future__ import annotations

import os
import time
from typing import Any

from distrun.wire import Lines, encoded

_BACKLOG_NBYTES = 4 << 20
_NUMBERS = ("metrics", "system")
_NUMBERS_NBYTES = 1 << 20
_DOORBELL_S = 0.02
_METRICS_S = 0.1


class Observer:
    """Exchanges messages with the client over two pipes."""

    def __init__(self, commands_fd: int, events_fd: int, received: bytes = b"") -> None:
        self.commands_fd = commands_fd
        self.gone = False
        self.events_fd = events_fd
        self._backlog = b""
        self._lines = Lines(received=received)
        self._rung_at = 0.0
        self._news = False
        self._metrics_at = 0.0
        os.set_blocking(events_fd, False)

    def read_commands(self) -> list[dict[str, Any]] | None:
        """Return commands; None when the client is gone."""
        data = os.read(self.commands_fd, 1 << 16)
        if not data:
            self.gone = True
            return None
        return self._lines.feed(data)

    def early_commands(self) -> list[dict[str, Any]]:
        """Return commands that were read with the order."""
        return self._lines.feed(b"")

    def tell(self, event: dict[str, Any]) -> None:
        """Pass an event on; of the numbers of training steps, ten a second."""
        if event["event"] == "metrics":
            now = time.monotonic()
            if now - self._metrics_at < _METRICS_S:
                return
            self._metrics_at = now
        limit_nbytes = _NUMBERS_NBYTES if event["event"] in _NUMBERS else _BACKLOG_NBYTES
        if len(self._backlog) < limit_nbytes or event["event"] == "ended":
            self._backlog += encoded(event)
            self.flush()

    def ring(self) -> None:
        """Note that a log has grown; `flush` tells the client, at a limited rate."""
        self._news = True

    def flush(self) -> float | None:
        """Write what fits; return after how many seconds to call again, None if not needed."""
        now = time.monotonic()
        if self._news and now - self._rung_at >= _DOORBELL_S:
            self._news = False
            self._rung_at = now
            self._backlog += encoded({})
        try:
            while self._backlog and not self.gone:
                self._backlog = self._backlog[os.write(self.events_fd, self._backlog) :]
        except BlockingIOError:
            return _DOORBELL_S
        except OSError:
            self.gone = True
        return _DOORBELL_S if self._news else None

    def flush_for(self, limit_s: float) -> None:
        """Write until all is written or the time is over."""
        deadline = time.monotonic() + limit_s
        while self._backlog and not self.gone and time.monotonic() < deadline:
            if self.flush():
                time.sleep(_DOORBELL_S)
