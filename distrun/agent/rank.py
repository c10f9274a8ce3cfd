"""One rank as its agent sees it: a process and the files between them."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distrun.agent.output import Output
from distrun.processes import send, send_group
from distrun.signal_masks import survives
from distrun.signals import STACKS
from distrun.wire import Lines, Message

_READ_NBYTES = 1 << 20
_REPORTS: dict[str, dict[str, tuple[type, ...]]] = {
    "metrics": {
        "step": (int,),
        "total_steps": (int, type(None)),
        "time": (int, float),
        "values": (dict,),
    },
    "milestone": {"what": (str,), "step": (int,), "time_s": (int, float)},
    "error": {
        **dict.fromkeys(("type", "message", "traceback", "file", "source"), (str,)),
        "line": (int,),
        **dict.fromkeys(("carriers", "threads"), (list,)),
        "monotonic": (int, float),
    },
    "collectives": {"answer": (dict,)},
    "leaving": {"monotonic": (int, float)},
}
"""The reports of a rank, and the fields that each must have."""
_MOST = 1e15
"""A number from there on, infinite or NaN, is a mistake: to compute with it may fail."""
_LAST_WORDS_NBYTES = 4096
_CRASH = b"Fatal Python error: "
_PRINTED_NBYTES = 1 << 16
"""How much of the end of its output is kept: it may hold the stacks of many threads."""
_STACKS_LIMIT_NBYTES = 1 << 18
_RECORDER = f'  File "{Path(__file__).with_name("recorder.py")}", line '
"""How faulthandler begins the outermost line of the recorder's thread."""


class Rank:
    """Pipes for output and reports, and an unnamed file for stacks; `open` makes them."""

    def __init__(self, rank: int, *, apart: bool) -> None:
        self.rank = rank
        self.pid = 0
        self.status: int | None = None
        """Wait status after it has ended."""
        self.report: dict[str, Any] | None = None
        """The error that it reported before its end."""
        self.left_at: float | None = None
        """When it reported that, or the end of its script."""
        self.left_by_itself = False
        """It reported that before it was asked to stop."""
        self.told: set[int] = set()
        """Signals that were sent to stop it."""
        self._printed = b""
        """The end of what it has printed."""
        self.report_at_eof = False
        self._reports = Lines(tolerant=True, max_nbytes=_READ_NBYTES)
        self.output = Output(apart=apart)
        self.report_fd, self._report_write = os.pipe()
        self._stacks_fd = _nameless_file()
        os.set_blocking(self.report_fd, False)

    def open(self, handed: Sequence[int | None]) -> list[int]:
        """Return the descriptors the rank gets: stdin, stdout, stderr, report, stacks.

        The caller closes them here when the rank has them.

        Args:
            handed: Its stdin, stdout and stderr, in place of /dev/null and the pipes.
        """
        own = [os.open(os.devnull, os.O_RDONLY), *self.output.write_fds]
        streams = []
        for mine, theirs in zip(own, handed, strict=True):
            if theirs is not None:
                os.close(mine)
            streams.append(mine if theirs is None else os.dup(theirs))
        return [*streams, self._report_write, os.dup(self._stacks_fd)]

    def read_output(self) -> list[tuple[str, bytes]]:
        """Return its new output, a part of each stream."""
        parts = self.output.read()
        for _, data in parts:
            self._printed = (self._printed + data)[-_PRINTED_NBYTES:]
        return parts

    def read_reports(self) -> list[dict[str, Any]]:
        """Return the reports that have arrived whole."""
        data = _read(self.report_fd)
        self.report_at_eof = data == b""
        return [record for record in self._reports.feed(data or b"") if _is_report(record)]

    def take_leave(self, record: dict[str, Any]) -> None:
        """Note its last report."""
        self.left_at = record["monotonic"]
        self.left_by_itself = not self.told
        if record["report"] == "error":
            self.report = record

    def ask_to_stop(self, signum: int) -> None:
        """Send it a stop signal, and SIGCONT if it is stopped.

        A rank whose script has ended is stopping already. The signal would only interrupt
        its exit handlers, destructors and pools. If it has threads of its own, it gets the
        signal: they may never end, or wait for it.
        """
        has_threads = bool(self.report and self.report["threads"])
        if not self.left_by_itself or has_threads or survives(self.pid, signum):
            self.tell(signum)
        send(self.pid, signal.SIGCONT)  # a stopped process handles no signal

    def tell(self, signum: int) -> None:
        """Send it a signal that is to end it."""
        self.told.add(signum)
        send(self.pid, signum)

    @property
    def exit_code(self) -> int:
        """Its exit code, -n for signal n.

        The end of an interpreter may take long. If we kill a rank meanwhile, it had already
        ended, or raised: that counts.
        """
        assert self.status is not None
        code = os.waitstatus_to_exitcode(self.status)
        if not self._was_ended_by_us:
            return code
        if self.report is None:
            return 0
        return -signal.SIGINT if self.report["type"] == "KeyboardInterrupt" else 1

    @property
    def code_known(self) -> bool:
        """Its exit code is its own: it was not killed on its way out, without an error."""
        assert self.status is not None
        return not self._was_ended_by_us or self.report is not None

    @property
    def _was_ended_by_us(self) -> bool:
        """We ended it while it left; a request for stacks does that if faulthandler is gone."""
        assert self.status is not None
        code = os.waitstatus_to_exitcode(self.status)
        return self.left_by_itself and -code in {*self.told, STACKS} and code != 0

    @property
    def printed_stacks(self) -> str:
        """What faulthandler has printed, if the script has it print on stderr."""
        begin = self._printed.rfind(_CRASH)
        return "" if begin < 0 else self._printed[begin:].decode(errors="replace")

    @property
    def last_words(self) -> str:
        """The end of what it has printed, before it crashed."""
        words = self._printed
        if self.exit_code < 0 and _CRASH in words:
            words = words[: words.rfind(_CRASH)]
        return words[-_LAST_WORDS_NBYTES:].decode(errors="replace")

    def ended_at(self, seen_at: float) -> float:
        """Return when it ended: when it reported its end, or when its death was seen.

        A crash while it leaves is a second event, later than the report.
        """
        crashed = self.exit_code < 0 and self.report is None
        return seen_at if self.left_at is None or crashed else min(seen_at, self.left_at)

    @property
    def stacks_nbytes(self) -> int:
        """How much faulthandler has written since the last reading."""
        return os.fstat(self._stacks_fd).st_size

    def read_stacks(self) -> str:
        """Return what faulthandler has written since; a crash stays, for the end that follows."""
        data = os.pread(self._stacks_fd, _STACKS_LIMIT_NBYTES, 0)
        if _CRASH not in data:
            os.ftruncate(self._stacks_fd, 0)
            os.lseek(self._stacks_fd, 0, os.SEEK_SET)
        return _without_recorder(data.decode(errors="replace"))

    def kill(self) -> None:
        """SIGKILL the rank and its process group."""
        send_group(self.pid, signal.SIGKILL)
        self.tell(signal.SIGKILL)

    def close(self) -> None:
        """Close its descriptors that are still open."""
        self.output.close()
        for fd in (self.report_fd, self._stacks_fd):
            os.close(fd)


def _without_recorder(stacks: str) -> str:
    """Return stacks without those of our own thread: they tell nothing of the script."""
    blocks = re.split(r"(?m)^(?=Current thread |Thread )", stacks)
    return "".join(b for b in blocks if not b.rstrip().rpartition("\n")[2].startswith(_RECORDER))


def _is_report(record: Message) -> bool:
    """Return whether it is a report; a script may write anything to this descriptor."""
    try:
        wanted = _REPORTS[record["report"]]
        return all(
            type(record[name]) in kinds and _is_bounded(record[name])
            for name, kinds in wanted.items()
        )
    except (KeyError, TypeError):
        return False


def _is_bounded(value: object) -> bool:
    """Return whether a number is one of a step, a line or a time; what is no number is none."""
    return not isinstance(value, (int, float)) or abs(value) < _MOST


def _read(fd: int) -> bytes | None:
    """Return bytes, b"" at the end of the file, None if there is nothing now."""
    try:
        return os.read(fd, _READ_NBYTES)
    except BlockingIOError:
        return None


def _nameless_file() -> int:
    if sys.platform.startswith("linux"):
        return os.memfd_create("distrun-stacks", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile(prefix="distrun-") as file:
        return os.dup(file.fileno())
