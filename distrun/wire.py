"""Messages between the processes of a run: one line of JSON each, some followed by raw bytes.

A line with `nbytes` is followed by that many raw bytes: the output of a rank is not quoted,
because 100 MB of it must cost little time. A blank line, or a NUL byte in a stream without raw
bytes, only says that the sender is alive.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

Message = dict[str, Any]
BEAT = b"\0"
"""Ignored at any place in a stream without raw bytes."""
BEAT_LINE = b"\n"
"""The same between the messages of a stream with raw bytes."""
_GREETING = b'{"greeting": "distrun"}'
"""The first line of a program that was started by a login shell: what comes before is not its."""
WAITING_FOR_NODES = "waiting for the other nodes"
"""The stage of a node whose rendezvous is not complete."""
_NOISE_NBYTES = 2048
_MOST_HEADERS = 256


def encoded(message: Message) -> bytes:
    """Return a message as its line."""
    return json.dumps(message).encode() + b"\n"


def greet(fd: int) -> None:
    """Write the greeting; it ends a line that a login shell may have begun."""
    with suppress(OSError):  # nobody reads any more: the end of the commands says so
        os.write(fd, BEAT_LINE + _GREETING + b"\n")


class Lines:
    """Joins the parts of a stream into its messages; there are no raw bytes in it.

    Args:
        tolerant: Pass over lines that are not messages.
        max_nbytes: A line that is longer is dropped.
        received: The beginning of the stream, if something else has read it.
    """

    def __init__(
        self, *, tolerant: bool = False, max_nbytes: int | None = None, received: bytes = b""
    ) -> None:
        self._tolerant = tolerant
        self._max_nbytes = max_nbytes
        self.rest = received
        """The line that has not ended."""

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that end in `data`."""
        *lines, rest = (self.rest + data.replace(BEAT, b"")).split(b"\n")
        too_long = self._max_nbytes is not None and len(rest) > self._max_nbytes
        self.rest = b"" if too_long else rest
        if not self._tolerant:
            return [json.loads(line) for line in lines if line]
        return [message for line in lines if (message := message_in(line)) is not None]


class Frames:
    """Joins the parts of a stream into messages, and the raw bytes that follow some of them.

    Lines that are not messages are passed over: a login shell may print a banner.

    Args:
        greeted: Pass over every line, JSON too, as far as to the greeting.
    """

    def __init__(self, *, greeted: bool = False) -> None:
        self._waits = greeted
        self.noise = b""
        """The end of what was passed over."""
        self._partial = b""
        self._header: Message = {}
        self._headers: dict[bytes, Message] = {}
        """Those that came lately, by their lines: a rank that flushes each line repeats a few."""
        self._raw_left = 0

    def feed(self, data: bytes) -> list[tuple[Message, memoryview]]:
        """Return the messages in `data`, each with its raw bytes; equal headers are one object.

        Raw bytes that have come in part are returned in part, to avoid copies of large output.
        """
        found, view, at = [], memoryview(data), 0
        while at < len(data):
            if self._raw_left > 0:
                end = min(at + self._raw_left, len(data))
                found.append((self._header, view[at:end]))
                self._raw_left -= end - at
                at = end
                continue
            newline = data.find(b"\n", at)
            if newline < 0:
                self._partial += data[at:]
                break
            line = self._partial + data[at:newline]
            self._partial, at = b"", newline + 1
            if not line:
                continue
            if self._waits and line == _GREETING:
                self._waits = False
                continue
            if self._waits or (message := self._message_in(line)) is None:
                self.noise = (self.noise + line + b"\n")[-_NOISE_NBYTES:]
                continue
            nbytes = message.get("nbytes")
            self._header, self._raw_left = message, nbytes if type(nbytes) is int else 0
            if self._raw_left <= 0:
                found.append((message, view[:0]))
        return found

    def _message_in(self, line: bytes) -> Message | None:
        if (known := self._headers.get(line)) is not None:
            return known
        message = message_in(line)
        if message is not None and "nbytes" in message:
            if len(self._headers) >= _MOST_HEADERS:
                self._headers.clear()
            self._headers[line] = message
        return message


def message_in(line: bytes) -> Message | None:
    """Return the message of a line; None if it is not one."""
    try:
        found = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def first_message(fd: int) -> tuple[Message, bytes] | None:
    """Read the first message of a stream; None if it ends before.

    Returns:
        The message, and the beginning of the next ones, for `Lines`.
    """
    data = b""
    while b"\n" not in data:
        if not (more := os.read(fd, 1 << 20)):
            return None
        data += more.replace(BEAT, b"")
    line, _, rest = data.partition(b"\n")
    return json.loads(line), rest
