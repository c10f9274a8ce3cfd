"""Prepares a rank before its script begins: it reports its end, and writes stacks on request.

The script can see none of it. A warm rank, forked from a process that has imported torch,
must behave exactly like `python -u recipe.py`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from distrun.agent import first_group
from distrun.agent.carried import Original, Place, best_place, original, place_of
from distrun.agent.gloo_end import close_gloo
from distrun.agent.last_exit import call_last
from distrun.frames import is_distrun, shortened
from distrun.processes import die_with_parent
from distrun.signals import STACKS

_MESSAGE_CHARS, _TRACEBACK_CHARS, _NAME_CHARS, _TYPE_CHARS = 1 << 14, 1 << 15, 1 << 12, 200
"""How much of each text is kept: a report stays below the 1 MiB that the agent reads, even if
each character is 12 bytes of JSON. The log of the rank has all of it."""
_NO_MESSAGE = "<no message: its __str__ raised>"
_CARRIERS = 8


def prepare(report_fd: int, stacks_fd: int) -> None:
    """Prepare this process, a rank, for its script.

    Args:
        report_fd: Pipe to the agent.
        stacks_fd: File for Python stacks, on a crash or when the agent asks.
    """
    if any(map(os.environ.get, ("PYTHONFAULTHANDLER", "PYTHONDEVMODE"))):
        faulthandler.enable(file=2)  # as python does: the traceback belongs in the log
    else:
        faulthandler.enable(file=stacks_fd)
    if STACKS:
        # Of the main thread alone: to read the stack of one that runs crashes the process.
        faulthandler.register(STACKS, file=stacks_fd, all_threads=False)
    reporter = Reporter(report_fd, os.fstat(report_fd).st_ino, os.getpid())
    call_last(reporter.at_exit)
    first_group.watch(os.environ)
    _call_before_threads_are_joined(reporter.at_raise)


def prepare_cold(order: Mapping[str, Any]) -> None:
    """Prepare a rank in an interpreter of its own."""
    for fd in (order["report_fd"], order["stacks_fd"], order["guard_fd"]):
        os.set_inheritable(fd, False)  # they came through one exec, and must not pass another
    die_with_parent(os.getppid(), order["guard_fd"])
    prepare(order["report_fd"], order["stacks_fd"])


def prepare_warm(report_fd: int, stacks_fd: int) -> None:
    """Prepare a rank that was forked from a process that has imported torch."""
    # `random` and `tempfile` do so by themselves; CUDA's generators are made after the fork.
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.default_generator.seed()
    prepare(report_fd, stacks_fd)


def _call_before_threads_are_joined(callback: Callable[[], None]) -> None:
    """Have `callback` called when the script has ended, before its threads are joined.

    `threading` calls the last of these callbacks first (python/cpython#83993), and that of
    concurrent.futures waits for the threads of pools. To import it here, so that it registers
    before ours, would shadow modules beside the script that have the names of its imports.
    """

    class OursFirst(list[Callable[[], None]]):
        def __reversed__(self) -> Iterator[Callable[[], None]]:
            yield callback
            yield from super().__reversed__()

    if (others := getattr(threading, "_threading_atexits", None)) is not None:
        threading._threading_atexits = OursFirst(others)  # type: ignore[attr-defined]


@dataclass
class Reporter:
    """Reports to the agent that its rank leaves, and an exception that nothing caught."""

    fd: int
    inode: int
    pid: int
    _told: bool = False

    def at_raise(self) -> None:
        """Report an exception that ends the script while other threads may go on.

        The interpreter notes it before it calls `sys.excepthook`. So this needs no hook of
        ours, which the script could see, and the script's own hook changes nothing. (An audit
        hook would run earlier, and make every `id()` of the script twenty times slower.)
        """
        error = getattr(sys, "last_value", None)
        if os.getpid() == self.pid and error is not None and _ends_the_script(error):
            self._told = True
            self._tell_error(error, _names_of_other_threads())

    def at_exit(self) -> None:
        """Report that the rank leaves, and why, unless that is reported already."""
        if os.getpid() != self.pid:  # a process that the script forked
            return
        error = getattr(sys, "last_value", None)
        if error is None or not _ends_the_script(error):
            self._tell({"report": "leaving"})  # before its peers can see a closed connection
        elif not self._told:
            self._tell_error(error, [])
        first_group.stop()
        close_gloo()

    def _tell_error(self, error: BaseException, threads: list[str]) -> None:
        self._tell(_uncaught(error) | {"threads": threads})
        if isinstance(error, RuntimeError) and (calls := first_group.last_calls()):
            self._tell({"report": "collectives", "answer": calls})  # a peer of it may be to blame

    def _tell(self, record: dict[str, Any]) -> None:
        record["monotonic"] = time.monotonic()
        try:
            if os.fstat(self.fd).st_ino != self.inode:
                return  # the script has closed it, and opened another file
            left = memoryview(json.dumps(record).encode() + b"\n")
            while left:  # a long one takes the pipe several writes
                left = left[os.write(self.fd, left) :]
        except OSError:
            pass  # closed, or the agent is gone; the exit code remains


def _names_of_other_threads() -> list[str]:
    """Return the names of threads that keep the interpreter alive until they end.

    Those of a pool end with its work: `concurrent.futures` stops them.
    """
    pools = sys.modules.get("concurrent.futures.thread")
    of_pools = vars(pools).get("_threads_queues", ()) if pools else ()
    known = {threading.current_thread(), *of_pools}
    others = (t for t in threading.enumerate() if not t.daemon and t not in known)
    return [thread.name[:80] for thread in others][:99]


def _ends_the_script(error: BaseException) -> bool:
    """Return whether an exception left the script itself, not code that a shell ran in it."""
    trace = error.__traceback__
    if trace is None or isinstance(error, SyntaxError):
        return True  # the script did not begin
    code = trace.tb_frame.f_code
    if code.co_filename == "<console>":  # of the module `code`, which hides its own frames
        return False
    return code.co_name == "<module>" or code.co_filename.startswith("<frozen runpy")


def _uncaught(error: BaseException) -> dict[str, Any]:
    try:
        found = original(error)
        place = best_place(found)
    except Exception:  # the user's class may raise in any method
        found, place = Original([error], []), _place_of_itself(error)
    told, last = found.told, found.errors[-1]
    return {
        "report": "error",
        "type": _text(lambda: told.type if told else type(last).__name__, "exception", _TYPE_CHARS),
        "message": _text(lambda: told.message if told else last, _NO_MESSAGE, _MESSAGE_CHARS),
        "traceback": _text(lambda: _formatted(error), "", _TRACEBACK_CHARS),
        "file": shortened(place.file, _NAME_CHARS),
        "line": place.line,
        "function": shortened(place.function, _NAME_CHARS),
        "source": shortened(place.source, _NAME_CHARS),
        "carriers": found.carriers[:_CARRIERS],
    }


def _place_of_itself(error: BaseException) -> Place:
    try:
        return place_of(error)
    except Exception:  # see there
        return Place()


def _formatted(error: BaseException) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.13 compiles the line, to point at a part of it
        return "".join(_without_distrun(error).format())


def _without_distrun(error: BaseException) -> traceback.TracebackException:
    """Return the traceback without distrun's own frames, unless there are no others."""
    shown = traceback.TracebackException.from_exception(error)
    if kept := [f for f in shown.stack if not is_distrun(f.filename)]:
        shown.stack[:] = kept
    return shown


def _text(make: Callable[[], object], otherwise: str, limit: int = _NAME_CHARS) -> str:
    try:
        return shortened(str(make()), limit)
    except BaseException:  # whatever the user's objects do, report the type and the line
        return otherwise
