"""The board of a group that spans hosts: the store at which its ranks met.

A rank's call is the name of a key. All ranks make the same call exactly if every rank finds
its own call under the names of all others, so one request, which waits, is enough. Only when
that does not come true do the ranks put up the calls themselves, to find out why. Lines of
code are not compared: calls of equal shapes in swapped order are not seen across hosts.
"""

from __future__ import annotations

import collections
import hashlib
import time
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from distrun.comm.checked.board import Board, Entry, State
from distrun.comm.checked.record import decode
from distrun.comm.errors import GroupDeadError

_PATIENCE_S = 1.0
"""How long a call may be overdue before the ranks look for the reason."""
_LOOK_S = 0.1


class StoreBoard(Board):
    """A board in a c10d store (https://docs.pytorch.org/docs/stable/distributed.html#stores).

    Args:
        store: Of this group alone (a PrefixStore).
        rank: This rank.
        world_size: Ranks of the group.
    """

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self._store = store
        # While this rank waits at `store`, its watch uses a connection of its own.
        self._aside = store.clone()  # type: ignore[attr-defined] # the stubs lack it
        self._rank = rank
        self._world_size = world_size
        self._others = [r for r in range(world_size) if r != rank]
        self._own_keys: collections.deque[str] = collections.deque()

    def exchange(self, number: int, record: bytes, timeout_s: float) -> list[Entry] | None:
        what = "\x1f".join(decode(record).what).encode()
        digest = hashlib.blake2b(what, digest_size=12).hexdigest()
        own = f"{number}/{self._rank}/{digest}"
        theirs = [f"{number}/{r}/{digest}" for r in self._others]
        deadline = time.monotonic() + timeout_s
        try:
            self._store.set(own, "")  # asks for no answer: this and the wait are one round trip
            self._own_keys.append(own)
            if self._wait(theirs, min(_PATIENCE_S, timeout_s)):
                return None
            self._store.set(f"call/{number}/{self._rank}", record.decode())
            too_late = any(self._look(f"gave up/{r}") is not None for r in self._others)
            overdue_at = time.monotonic()
            deadline = max(deadline, overdue_at + _PATIENCE_S / 2)  # they publish too
            while True:
                entries = [self._entry(r, number, too_late) for r in range(self._world_size)]
                states = {entry.state for entry in entries}
                if states & {State.LEFT, State.GAVE_UP}:  # in vain: now only who has called counts
                    deadline = min(deadline, overdue_at + _PATIENCE_S)
                if time.monotonic() > deadline or _is_settled(entries):
                    return entries
                if self._wait(theirs, _LOOK_S):
                    return None
        except dist.DistNetworkError as error:
            raise GroupDeadError(
                f"rank {self._rank} cannot reach the store where the ranks met:"
                f" {str(error).splitlines()[0]}",
                "rank 0 keeps it: see how it ended",
            ) from error

    def _wait(self, keys: list[str], timeout_s: float) -> bool:
        try:
            self._store.wait(keys, timedelta(seconds=timeout_s))
        except dist.DistStoreError:
            return False
        return True

    def _entry(self, rank: int, number: int, too_late: bool) -> Entry:
        found = {kind: self._look(f"{kind}/{rank}") for kind in ("gave up", "left", "place")}
        record = self._look(f"call/{number}/{rank}")
        if too_late and found["gave up"] is not None:
            return Entry(State.GAVE_UP, b"", _text(found["place"]))
        if record is not None:
            return Entry(State.CALLED, record)
        if found["left"] is not None:
            return Entry(State.LEFT, b"", _text(found["left"]))
        return Entry(State.LATE, b"", _text(found["place"]))

    def _look(self, key: str) -> bytes | None:
        return self._store.get(key) if self._store.check([key]) else None

    def absent(self) -> dict[int, str]:
        try:
            found = {rank: self._look(f"left/{rank}") for rank in self._others}
        except dist.DistNetworkError:
            return {}  # the rank that keeps the store is gone, whichever that is
        return {rank: _text(place) for rank, place in found.items() if place is not None}

    def give_up(self, number: int) -> None:
        self._store.set(f"gave up/{self._rank}", str(number))
        while self._own_keys:  # or a rank that comes later would find them, and go on
            self._store.delete_key(self._own_keys.popleft())

    def leave(self, place: str) -> None:
        try:
            self._store.set(f"left/{self._rank}", place)
        except dist.DistNetworkError:
            pass  # rank 0 was faster, and the store is gone with it

    def locate(self, place: str) -> None:
        try:
            self._aside.set(f"place/{self._rank}", place)
            while len(self._own_keys) > 2:  # all ranks have seen what is two calls old
                self._aside.delete_key(self._own_keys.popleft())
        except dist.DistNetworkError:
            pass

    def close(self) -> None:
        """Nothing to do: the connections end with the objects."""


def _is_settled(entries: list[Entry]) -> bool:
    """Say whether every rank is accounted for, and they will not come to agree."""
    states = [entry.state for entry in entries]
    if State.LATE in states:
        return False
    called = {decode(entry.record).what for entry in entries if entry.state is State.CALLED}
    return len(called) > 1 or set(states) != {State.CALLED}


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode(errors="replace")
