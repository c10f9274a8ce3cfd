"""The board of a group whose ranks are on one host: memory that all of them map.

A rank writes its call, then the call's number. A rank that has read every number can read every
call. The memory of a call is reused only two calls later, when all ranks have read it.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from distrun.comm.checked.board import Board, Entry, State
from distrun.comm.checked.record import MAX_NBYTES
from distrun.identity import boot_id
from distrun.processes import start_time

_PLACE_NBYTES = 512
_RECORD_NBYTES = 512
_HEADER_NBYTES = 64
_SLOT_NBYTES = _HEADER_NBYTES + _PLACE_NBYTES + 2 * _RECORD_NBYTES
assert MAX_NBYTES + 2 <= _RECORD_NBYTES
assert _SLOT_NBYTES % 8 == 0

_LEFT = 1 << 62
_GAVE_UP = 1 << 61
_NUMBER = _GAVE_UP - 1
_YIELDS = 200
"""How often a waiting rank yields the CPU before it sleeps; enough for ranks that are in step."""
_FIRST_SLEEP_S, _LONGEST_SLEEP_S = 20e-6, 1e-3
_LOOK_S = 0.02
"""How often a waiting rank checks that the process it waits for is alive."""


class SharedMemoryBoard(Board):
    """A board in a file that every rank maps, and that has been unlinked.

    Args:
        path: A file of `nbytes(world_size)` bytes; the caller unlinks it when all ranks have opened
            it.
        rank: This rank.
        processes: pid and start time of each rank's process.
    """

    def __init__(self, path: Path, rank: int, processes: Sequence[tuple[int, str]]) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), nbytes(len(processes)))
        self._bytes = memoryview(self._map)
        self._numbers = self._bytes.cast("Q")
        self._slots = [r * _SLOT_NBYTES for r in range(len(processes))]
        self._words = [slot // 8 for slot in self._slots]
        self._own, self._own_word = self._slots[rank], self._words[rank]
        self._others = [(r, self._words[r]) for r in range(len(processes)) if r != rank]
        self._processes = processes

    def exchange(self, number: int, record: bytes, timeout_s: float) -> list[Entry] | None:
        page = _HEADER_NBYTES + _PLACE_NBYTES + (number & 1) * _RECORD_NBYTES
        assert len(record) <= MAX_NBYTES, record
        line = len(record).to_bytes(2, "little") + record
        begin = self._own + page
        self._bytes[begin : begin + len(line)] = line
        numbers = self._numbers
        numbers[self._own_word] = number | (numbers[self._own_word] & _GAVE_UP)
        deadline = time.monotonic() + timeout_s
        alike = True
        for rank, word in self._others:
            if numbers[word] - number not in (0, 1):
                too_late = any(numbers[w] & _GAVE_UP for _, w in self._others)
                if too_late or not self._wait(rank, number, deadline):
                    return self._entries(number, too_late)
            begin = self._slots[rank] + page
            alike = alike and self._bytes[begin : begin + len(line)] == line
        if any(numbers[word] & _GAVE_UP for _, word in self._others):  # while this rank waited
            return self._entries(number, too_late=True)
        return None if alike else self._entries(number)

    def _wait(self, rank: int, number: int, deadline: float) -> bool:
        """Wait until a rank has posted a call; return False if it does not, or has given up."""
        word, numbers = self._words[rank], self._numbers
        for _ in range(_YIELDS):
            if numbers[word] >= number:
                break
            os.sched_yield()
        sleep_s, next_look = _FIRST_SLEEP_S, time.monotonic() + _LOOK_S
        while (seen := numbers[word]) < number:
            time.sleep(sleep_s)
            sleep_s = min(sleep_s * 1.5, _LONGEST_SLEEP_S)
            if (now := time.monotonic()) > next_look:
                next_look = now + _LOOK_S
                if now > deadline or self._is_hopeless(number):
                    return numbers[word] & _NUMBER >= number
        return not seen & _GAVE_UP and seen & _NUMBER >= number

    def _is_hopeless(self, number: int) -> bool:
        """Return whether it is certain that some rank will never make this call."""
        return any(
            self._numbers[word] & _GAVE_UP
            or (self._numbers[word] & _NUMBER < number and self._has_ended(rank, word))
            for rank, word in self._others
        )

    def _has_ended(self, rank: int, word: int) -> bool:
        pid, started = self._processes[rank]
        return bool(self._numbers[word] & _LEFT) or start_time(pid) != started

    def _entries(self, number: int, too_late: bool = False) -> list[Entry]:
        # on a CPU that reorders stores, a record may become visible after its number
        time.sleep(0.001)
        return [self._entry(rank, number, too_late) for rank in range(len(self._slots))]

    def _entry(self, rank: int, number: int, too_late: bool) -> Entry:
        seen = self._numbers[self._words[rank]]
        place = self._place(rank)
        if too_late and seen & _GAVE_UP:
            state = State.GAVE_UP
        elif seen & _NUMBER >= number:
            state = State.CALLED
        elif seen & _LEFT:
            state = State.LEFT
        elif start_time(self._processes[rank][0]) != self._processes[rank][1]:
            state, place = State.LEFT, self._gone(rank)
        else:
            state = State.LATE
        page = _HEADER_NBYTES + _PLACE_NBYTES + (number & 1) * _RECORD_NBYTES
        called = seen & _NUMBER >= number
        return Entry(state, self._text(self._slots[rank] + page) if called else b"", place)

    def absent(self) -> dict[int, str]:
        return {
            rank: self._place(rank) if self._numbers[word] & _LEFT else self._gone(rank)
            for rank, word in self._others
            if self._has_ended(rank, word)
        }

    def _place(self, rank: int) -> str:
        return self._text(self._slots[rank] + _HEADER_NBYTES).decode(errors="replace")

    def _gone(self, rank: int) -> str:
        return f"its process {self._processes[rank][0]} has ended"

    def _text(self, begin: int) -> bytes:
        size = int.from_bytes(self._bytes[begin : begin + 2], "little")
        return bytes(self._bytes[begin + 2 : begin + 2 + size])

    def give_up(self, number: int) -> None:
        self._numbers[self._own_word] |= _GAVE_UP

    def leave(self, place: str) -> None:
        self.locate(place)
        self._numbers[self._own_word] |= _LEFT

    def locate(self, place: str) -> None:
        text = place.encode(errors="replace")[: _PLACE_NBYTES - 2]
        begin = self._own + _HEADER_NBYTES
        line = len(text).to_bytes(2, "little") + text
        self._bytes[begin : begin + len(line)] = line

    def close(self) -> None:
        self._numbers.release()
        self._bytes.release()
        self._map.close()


def nbytes(world_size: int) -> int:
    """Return the size of a board's file."""
    return world_size * _SLOT_NBYTES


def new_file(world_size: int) -> Path:
    """Make the file of an empty board, in /dev/shm if the system has it."""
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    fd, name = tempfile.mkstemp(prefix="distrun-", dir=folder)
    try:
        os.truncate(fd, nbytes(world_size))
        # else writing to a full tmpfs kills the process by SIGBUS
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, nbytes(world_size))
    except OSError:
        Path(name).unlink()
        raise
    finally:
        os.close(fd)
    return Path(name)


def host_key() -> str:
    """Return a key that is equal for processes that share /dev/shm and the PID namespace."""
    spaces = [f"/proc/self/ns/{kind}" for kind in ("mnt", "pid")]
    links = [str(Path(space).readlink()) for space in spaces if Path(space).exists()]
    return "|".join([os.uname().nodename, boot_id(), *links])
