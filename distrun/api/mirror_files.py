"""The files of a run that is recorded elsewhere: one writer, and no line twice after a kill."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from distrun.runs.directory import RunDirectory
from distrun.runs.files import RunFile
from distrun.runs.record import RunRecord
from distrun.streams import BOTH, STDERR, STDOUT
from distrun.supervise.files import AppendFile
from distrun.supervise.metrics_file import MetricsFile
from distrun.supervise.rank_log import RankLog

_STATE_NBYTES = 16 << 20
_MOST_WAITING = 1 << 12
_EVIDENCE = re.compile(r"(stacks)/rank(\d{1,7})\.txt|(flight)/rank(\d{1,7})\.json", re.ASCII)
_STREAMS = (BOTH, STDERR, STDOUT)


class MirrorFiles:
    """The files; see `of`.

    Args:
        run: The run.
        lock_fd: The descriptor whose lock keeps other writers away.
        state: From the last checkpoint.
    """

    def __init__(self, run: RunDirectory, lock_fd: int, state: Mapping[str, Any]) -> None:
        self.state = state
        self._run = run
        self._lock_fd: int | None = lock_fd
        self.problem = ""
        """What could not be written, once."""
        self._events = AppendFile(run.events, self._complain)
        self._metrics = MetricsFile(AppendFile(run.metrics, self._complain), self._complain)
        self._words = AppendFile(run.batch_log, self._complain)
        self._logs: dict[tuple[int, int], RankLog] = {}
        self._output: tuple[int, int, str, float] | None = None
        self._pending: list[bytes] = []
        self._parts: dict[str, list[str]] = {}
        self._sizes: dict[str, int] = {}
        self._touched: dict[str, RunFile] = {}
        self._saved = ""

    @classmethod
    def of(cls, run: RunDirectory) -> MirrorFiles | None:
        """Take the lock, and cut off what was written after the last checkpoint.

        Returns:
            None if another process has the lock.

        Raises:
            OSError: The directory cannot be used.
        """
        fd = run.mirror_lock.open(os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return None
        try:
            found = json.loads(run.mirror_state.read(_STATE_NBYTES))
            state = found if isinstance(found, dict) else {}
        except (FileNotFoundError, ValueError, RecursionError):
            state = {}
        files = cls(run, fd, state)
        files._cut()
        return files

    def _cut(self) -> None:
        """Cut each file to its size at the last checkpoint."""
        sizes = self.state.get("sizes")
        known = sizes if isinstance(sizes, dict) else {}
        every = [self._run.events, self._run.metrics, self._run.batch_log]
        for key in self._run.rank_logs():
            every += [self._run.log(*key), self._run.streams(*key)]
        for file in every:
            name = "/".join(file.parts)
            size = known.get(name, 0)
            self._sizes[name] = size if type(size) is int else 0
            if file.inode() is None:
                continue
            fd = file.open(os.O_RDWR)
            try:
                if os.fstat(fd).st_size > self._sizes[name]:
                    os.ftruncate(fd, self._sizes[name])
            finally:
                os.close(fd)

    # --- what is added ------------------------------------------------------------------

    def add_event(self, event: Mapping[str, Any]) -> None:
        """Add a line to events.jsonl."""
        self.flush()
        self._events.write_json(dict(event))
        self._touch(self._run.events)

    def add_words(self, line: str) -> None:
        """Add a line to batch.log."""
        self._words.write(line.encode(errors="replace") + b"\n")
        self._touch(self._run.batch_log)

    def add_metrics(self, event: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        self._metrics.take(event)
        self._touch(self._run.metrics)

    def add_output(self, node: int, rank: int, stream: str, line: bytes, at: float) -> None:
        """Add a line to a rank's log; lines that follow one another are written at once."""
        if stream not in _STREAMS:
            raise ValueError(f"stream {stream!r}")
        now = (node, rank, stream, at)
        if now != self._output or len(self._pending) >= _MOST_WAITING:
            self.flush()
            self._output = now
        self._pending.append(line)

    def flush(self) -> None:
        """Write the output that waits."""
        if self._output is not None and self._pending:
            node, rank, stream, at = self._output
            self._log(node, rank).write(stream, b"".join(self._pending), at)
            self._touch(self._run.log(node, rank))
            self._touch(self._run.streams(node, rank))
        self._output, self._pending = None, []

    def make_log(self, node: int, rank: int) -> None:
        """Make a rank's log: it exists even if the rank prints nothing."""
        self._log(node, rank).create()
        self._touch(self._run.log(node, rank))

    def mark(self, text: str) -> None:
        """Write a line of ours into every rank's log."""
        self.flush()
        for node, rank in self._run.rank_logs():
            self._log(node, rank).say(text)
            self._touch(self._run.log(node, rank))
            self._touch(self._run.streams(node, rank))

    def add_error(self, rank: int, report: Mapping[str, Any]) -> None:
        """Write the exception that ended a rank."""
        self._replace(self._run.error(rank), json.dumps(report, indent=1) + "\n")

    def add_part(self, path: str, text: str, *, last: bool) -> None:
        """Add a part of a file of evidence; write it when it is whole.

        Raises:
            ValueError: The path is not that of a file of evidence.
        """
        if (match := _EVIDENCE.fullmatch(path)) is None:
            raise ValueError(f"{path!r} is no file of evidence")
        parts = self._parts.setdefault(path, [])
        parts.append(text)
        if last:
            file = self._run.stacks(int(match[2])) if match[1] else self._run.flight(int(match[4]))
            self._replace(file, "".join(self._parts.pop(path)))

    def write_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Write verdict.json."""
        self._replace(self._run.verdict, json.dumps(verdict, indent=1) + "\n")

    def forget_verdict(self) -> None:
        """Take away the verdict of an earlier attempt."""
        if self._run.verdict.inode() is not None:
            self._replace(self._run.verdict, "null\n")

    def write_record(self, now: RunRecord) -> None:
        """Write run.json."""
        self._replace(self._run.record, json.dumps(asdict(now), indent=1) + "\n")

    # --- what stays ---------------------------------------------------------------------

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Note the sizes of all files, with a state that belongs to them."""
        self.flush()
        for name, file in self._touched.items():
            self._sizes[name] = _size(file)
        self._touched.clear()
        text = json.dumps({**state, "sizes": self._sizes})
        if text != self._saved:
            self._replace(self._run.mirror_state, text)
            self._saved = text

    def close(self) -> None:
        """Close all files, and let go of the lock."""
        self.flush()
        for log in self._logs.values():
            log.close()
        self._metrics.close()
        self._events.close()
        self._words.close()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def _log(self, node: int, rank: int) -> RankLog:
        key = (node, rank)
        if key not in self._logs:
            files = self._run.log(*key), self._run.streams(*key)
            self._logs[key] = RankLog(*files, self._complain, 0)
        return self._logs[key]

    def _touch(self, file: RunFile) -> None:
        self._touched["/".join(file.parts)] = file

    def _replace(self, file: RunFile, text: str) -> None:
        try:
            file.replace_text(text)
        except OSError as error:
            self._complain(f"{file} cannot be written: {error.strerror}")

    def _complain(self, message: str) -> None:
        self.problem = self.problem or message


def _size(file: RunFile) -> int:
    try:
        fd = file.open(os.O_RDONLY)
    except OSError:
        return 0  # it could not be written either
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)
