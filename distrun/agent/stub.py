"""A node that does nothing but speak: the agent's side of a conversation, without torch.

    python -I -S …/stub.py LINES_PER_S SECONDS LINES_A_FRAME [NPROC_PER_NODE]

It joins, starts ranks in name alone, prints lines at a rate (the first rank), and ends when it is
told. A real agent sends a frame for each line of a rank that flushes each, while the supervisor
keeps up. `distrun simulate` and the benchmarks of the supervisor run it.
"""

from __future__ import annotations

import os
import select
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2]))

from distrun.silence import BEAT_S
from distrun.wire import BEAT_LINE, Lines, Message, encoded, first_message, greet

TICK_S = 0.05
LINE = b"x" * 79 + b"\n"
_CLEAN = {"left_by_itself": True, "report": None, "stacks": "", "code_known": True}
_END = {**_CLEAN, "stacks_printed": False, "last_words": "", "out_of_memory": "", "monotonic": 0.0}


class Stub:
    """One node.

    Args:
        lines_per_s: What its first rank prints.
        seconds: For how long; 0: its ranks never end by themselves.
        lines_a_frame: How many lines it sends at once.
        nproc_per_node: Its ranks.
        received: The beginning of the commands.
    """

    def __init__(
        self,
        lines_per_s: int,
        seconds: float,
        lines_a_frame: int,
        nproc_per_node: int,
        received: bytes,
    ) -> None:
        self._nproc_per_node = nproc_per_node
        self._lines_a_tick = round(lines_per_s * TICK_S)
        self._lines_a_frame = lines_a_frame
        self._ticks_left = round(seconds / TICK_S) if lines_per_s else 0
        self._lines = Lines(received=received)
        self._ranks = range(0)
        self._beat_at = 0.0
        self.over = False

    def event(self, name: str, **fields: object) -> None:
        """Send an event."""
        write(encoded({"event": name, **fields}))

    def run(self) -> None:
        """Join, and serve until the end."""
        self.event("node_stage", stage="starting", pid=os.getpid())
        self.event("node_joined", free_port=40000)
        due = time.monotonic()
        while not self.over:
            if select.select([0], [], [], max(0.0, due - time.monotonic()))[0]:
                if not (data := os.read(0, 1 << 16)):
                    return
                for command in self._lines.feed(data):
                    self.take(command)
            elif (now := time.monotonic()) >= due:
                due = now + TICK_S
                self.tick(now)

    def tick(self, now: float) -> None:
        """Print lines if there are some left, and say that it is alive."""
        if self._ranks and self._ticks_left > 0:
            self._ticks_left -= 1
            data = LINE * self._lines_a_frame
            fields = {"rank": self._ranks[0], "stream": "both", "nbytes": len(data)}
            frame = encoded({"event": "output", **fields}) + data
            write(frame * (self._lines_a_tick // self._lines_a_frame))
            if not self._ticks_left:
                self.end_ranks(0)
                self.event("node_succeeded")
        if now >= self._beat_at:
            self._beat_at = now + BEAT_S
            write(BEAT_LINE)

    def take(self, command: Message) -> None:
        """Do what the supervisor asks for."""
        name = command["command"]
        if name == "start":
            words = dict(word.split("=", 1) for word in command["arguments"] if "=" in word)
            first = int(words["--node-rank"]) * self._nproc_per_node
            self._ranks = range(first, first + self._nproc_per_node)
            for rank in self._ranks:
                self.event("rank_started", rank=rank, pid=os.getpid())
        elif name in ("stop", "kill"):
            self.end_ranks(-15)
            self.event("node_stopped")
        elif name == "exit":
            self.event("swept")
            self.over = True

    def end_ranks(self, code: int) -> None:
        """Report the end of the ranks."""
        for rank in self._ranks:
            end = {**_END, "left_by_itself": code >= 0, "exit_code": code}
            self.event("rank_ended", rank=rank, pid=os.getpid(), **end)
        self._ranks = range(0)


def write(data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def main() -> None:
    """Serve one supervisor."""
    greet(1)
    if (received := first_message(0)) is not None:
        lines_per_s, seconds, lines_a_frame, nproc = [*sys.argv[1:], "1"][:4]
        numbers = int(lines_per_s), float(seconds), int(lines_a_frame), int(nproc)
        Stub(*numbers, received[1]).run()


if __name__ == "__main__":
    main()
