"""Reads Xids and SXids, the errors of NVIDIA's drivers in the kernel log."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from distrun.probe.reading import Unread, reason
from distrun.probe.snapshot import Xid

_MAX_AGE_S = 2 * 3600.0
_KMSG_LIMIT_S = 1.0
_COMMAND_LIMIT_S = 2.0
_RECORD_NBYTES = 8192
"""The kernel refuses to copy a record into a smaller buffer."""
_MESSAGE_LENGTH = 200
_JOURNALCTL = ("journalctl", "-k", "-b", "-q", "-n", "20000", "--no-pager", "-o", "short-unix")
_XID = re.compile(
    r"(?:NVRM: (?P<gpu>Xid)|\bSXid) "
    r"\((?:PCI:)?(?P<place>[0-9A-Fa-f:.]+)(?P<part>[^)]*)\): (?P<code>\d+)"
)
_KMSG = re.compile(r"\d+,\d+,(\d+),[^;]*;(.*)")
_DMESG = re.compile(r"(?:<\d+>)?\[ *(\d+\.\d+)\] (.*)")
_JOURNAL = re.compile(r"(\d+\.\d+) \S+ kernel: (.*)")
Entry = tuple[float, str]
"""Age in seconds, and the message."""


def read_xids(root: Path = Path("/")) -> tuple[Xid, ...]:
    """Return the Xids of the last two hours, oldest first.

    Raises:
        Unread: There is an NVIDIA driver, but this user may not read the kernel log.
    """
    try:
        return _xids(_kmsg(root))
    except (OSError, Unread) as error:
        tried = [reason(error)]
    if not any((root / place).exists() for place in ("proc/driver/nvidia", "sys/module/nvidia")):
        return ()  # no driver that writes them
    for read in (_journal, _dmesg):
        try:
            return _xids(read())
        except Unread as error:
            tried.append(reason(error))
    raise Unread("the kernel log cannot be read: " + "; ".join(tried))


def _xids(entries: Iterator[Entry]) -> tuple[Xid, ...]:
    found = []
    for age_s, message in entries:
        if age_s <= _MAX_AGE_S and (xid := _XID.search(message)):
            text = message[xid.start() :][:_MESSAGE_LENGTH]
            place, part = _pci_id(xid["place"]), xid["part"].strip()
            age_s = round(max(0.0, age_s), 1)
            found.append(Xid(int(xid["code"]), place, age_s, text, part, not xid["gpu"]))
    return tuple(found)


def _pci_id(place: str) -> str:
    """Return `0000:3b:00.0`, the form in a snapshot, for the log's `0000:3b:00`."""
    return place.lower() if "." in place else f"{place.lower()}.0"


def _kmsg(root: Path) -> Iterator[Entry]:
    """Read /dev/kmsg without waiting for later records.

    Raises:
        OSError: It does not exist, or this user may not read it.
        Unread: Its end is not reached: the newest records would be missing.
    """
    fd = os.open(root / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    deadline = time.monotonic() + _KMSG_LIMIT_S
    data = b""
    try:
        while time.monotonic() < deadline:
            try:
                record = os.read(fd, _RECORD_NBYTES)
            except BrokenPipeError:  # it was overwritten; the next read returns the next one
                continue
            except BlockingIOError:
                break  # that was the last one
            if not record:
                break
            data += record
        else:
            raise Unread(f"/dev/kmsg did not end within {_KMSG_LIMIT_S:g} s")
    finally:
        os.close(fd)
    uptime_s = time.monotonic()
    for line in data.decode(errors="replace").splitlines():
        if entry := _KMSG.match(line):
            yield uptime_s - int(entry[1]) / 1e6, entry[2]


def _journal() -> Iterator[Entry]:
    now = time.time()
    for moment, message in _lines(_JOURNALCTL, _JOURNAL):
        yield now - moment, message


def _dmesg() -> Iterator[Entry]:
    uptime_s = time.monotonic()
    for moment, message in _lines(("dmesg",), _DMESG):
        yield uptime_s - moment, message


def _lines(command: tuple[str, ...], pattern: re.Pattern[str]) -> Iterator[tuple[float, str]]:
    """Run a program that prints the kernel log.

    Raises:
        Unread: It fails or prints nothing: without permission journalctl shows an empty log and
            exits with 0.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_COMMAND_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise Unread(f"{command[0]} did not answer within {_COMMAND_LIMIT_S:g} s") from None
    except OSError as error:
        raise Unread(f"{command[0]}: {error.strerror}") from None
    entries = [found for line in done.stdout.splitlines() if (found := pattern.match(line))]
    if done.returncode or not entries:
        said = done.stderr.strip().splitlines() or ["shows nothing to this user"]
        raise Unread(f"{command[0]}: {said[0]}")
    return ((float(entry[1]), entry[2]) for entry in entries)
