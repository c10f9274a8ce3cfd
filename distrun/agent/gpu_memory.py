"""Before a restart: waits for the GPU memory of the attempt that has ended, in a child process."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distrun.wire import Lines

_PROGRAM = Path(__file__).parents[1] / "probe" / "gpu_memory.py"
LIMIT_S = 50.0


class GpuMemory:
    """The wait.

    Args:
        selector: Calls a key's data when it is readable.
        tell: Sends events to the supervisor.
    """

    def __init__(self, selector: selectors.BaseSelector, tell: Callable[..., None]) -> None:
        self._selector, self._tell = selector, tell

    def wait(self, then: Callable[[], None], *, again: bool) -> None:
        """Call `then` when the memory is free, or the limit is over, or nobody can say.

        Args:
            then: Starts the ranks.
            again: There was an attempt before; else it is not waited.
        """
        if again and uses_gpus():
            self._tell("node_stage", stage="waiting for GPU memory")
            self.wait_for_drivers(then, LIMIT_S)
        else:
            then()

    def wait_for_drivers(self, then: Callable[[], None], limit_s: float) -> None:
        """See `wait`."""
        try:
            child = subprocess.Popen(
                [sys.executable, str(_PROGRAM), str(limit_s)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
        except OSError:  # this user may have no more processes: the ranks will say so
            then()
            return
        child.returncode = 0  # the agent reaps all of its children
        assert child.stdout
        fd, lines = os.dup(child.stdout.fileno()), Lines(tolerant=True)
        child.stdout.close()

        def on_line() -> None:
            if data := os.read(fd, 1 << 16):
                for told in lines.feed(data):
                    self._tell("notice", message=_words(told))
                return
            self._selector.unregister(fd)
            os.close(fd)
            then()

        self._selector.register(fd, selectors.EVENT_READ, on_line)


def uses_gpus() -> bool:
    """Return whether torch, which the agent has imported, is built for GPUs of NVIDIA."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.version.cuda is not None


def _words(told: dict[str, Any]) -> str:
    held: dict[str, int] = told["held"]
    gpus = ", ".join(f"GPU {index}: {nbytes / 2**30:.1f} GiB" for index, nbytes in held.items())
    if told["late"]:
        return f"memory of ended processes is still not free after {LIMIT_S:g} s ({gpus})"
    return f"waiting for the memory of ended processes ({gpus})"
