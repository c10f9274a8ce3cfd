"""What a rank has before its script begins: a way to tell its end, and stacks on request.

All of it is invisible to the script. That matters: a warm rank, forked from a process
that has imported torch, must not be told apart from `python -u recipe.py`.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from distrun.frames import is_distrun, is_library
from distrun.processes import die_with_parent

STACKS_SIGNAL = getattr(signal, "SIGRTMAX", 0) and signal.SIGRTMAX - 3
"""On this signal a rank writes the stacks of its threads; users have no use for it."""


def prepare(report_fd: int, stacks_fd: int) -> None:
    """Prepare this process, a rank, for its script.

    Args:
        report_fd: Pipe to the agent.
        stacks_fd: File for Python stacks, on a crash or when the agent asks.
    """
    faulthandler.enable(file=stacks_fd)
    if STACKS_SIGNAL:
        faulthandler.register(STACKS_SIGNAL, file=stacks_fd, all_threads=True)
    reporter = Reporter(report_fd, os.fstat(report_fd).st_ino, os.getpid())
    atexit.register(reporter.at_exit)  # the first to be registered is the last to be called


def prepare_cold(order: Mapping[str, Any]) -> None:
    """Prepare a rank in an interpreter of its own."""
    for fd in (order["report_fd"], order["stacks_fd"], order["guard_fd"]):
        os.set_inheritable(fd, False)  # they came through one exec, and go no further
    die_with_parent(os.getppid(), order["guard_fd"])
    prepare(order["report_fd"], order["stacks_fd"])


def prepare_warm(report_fd: int, stacks_fd: int) -> None:
    """Prepare a rank that was forked from a process with torch in it."""
    # `random` and `tempfile` do so by themselves; CUDA's generators are made after the fork.
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.default_generator.seed()
    prepare(report_fd, stacks_fd)


@dataclass(frozen=True)
class Reporter:
    """Tells the agent that its rank leaves, and of an exception that nobody caught."""

    fd: int
    inode: int
    pid: int

    def at_exit(self) -> None:
        """Report what the interpreter has noted before it called `sys.excepthook`.

        Neither a hook of the script's own nor a wrapper of ours, which the script could
        see, is between. (An audit hook would be told earlier, and make every `id()` of the
        script twenty times slower.)
        """
        if os.getpid() == self.pid:  # not a process that the script forked
            if (error := getattr(sys, "last_value", None)) is not None:
                self._tell(_uncaught(error))
            else:
                self._tell({"report": "leaving"})  # before its peers can see a closed connection
            close_gloo()

    def _tell(self, record: dict[str, Any]) -> None:
        record["monotonic"] = time.monotonic()
        try:
            if os.fstat(self.fd).st_ino != self.inode:
                return  # the script has closed it, and opened a file of its own
            os.write(self.fd, json.dumps(record).encode() + b"\n")
        except OSError:
            pass  # closed, or the agent is gone; the exit code still tells


def _uncaught(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not is_library(f.filename)] or list(frames)
    last = own[-1] if own else None
    if isinstance(error, SyntaxError) and error.filename:
        last = traceback.FrameSummary(error.filename, error.lineno or 0, "<module>")
    return {
        "report": "error",
        "type": type(error).__name__,
        "message": _message(error),
        "traceback": "".join(_without_distrun(error).format()),
        "file": last.filename if last else "",
        "line": (last.lineno or 0) if last else 0,
        "function": last.name if last else "",
        "source": (last.line or "") if last else "",
    }


def _without_distrun(error: BaseException) -> traceback.TracebackException:
    """Return the traceback without distrun's own frames, unless there are no others."""
    shown = traceback.TracebackException.from_exception(error)
    if kept := [f for f in shown.stack if not is_distrun(f.filename)]:
        shown.stack[:] = kept
    return shown


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a broken __str__ of the user's must not hide the error
        return "<no message: its __str__ raised>"


def close_gloo() -> None:
    """Close gloo's threads: left to the C++ teardown they abort one exit in some hundred.

    Only gloo: closing NCCL's communicators may wait for the peers.
    """
    torch = sys.modules.get("torch")
    try:
        dist = torch.distributed if torch else None
        if dist and dist.is_available() and dist.is_initialized() and _is_gloo_alone(dist):
            dist.destroy_process_group()
    except Exception:  # a nicety: it must never turn the script's ending into another
        pass


def _is_gloo_alone(dist: ModuleType) -> bool:
    # "cpu:gloo", or "cpu:gloo,cuda:gloo" where gloo was asked for by name
    return all(part.endswith("gloo") for part in dist.get_backend_config().split(","))
