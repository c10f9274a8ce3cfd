"""The board of a group on several hosts, in the store of its ranks.

A rank's call is part of the name of a key. All ranks make the same call if every rank finds the
keys of its own call for all other ranks, so one request that waits is enough. Only if that fails do
the ranks post their whole calls, to find out why. Lines of code are not compared: calls of equal
shapes in swapped order are not detected across hosts.
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
"""How long a call may be late before the ranks look for the reason."""
_LOOK_S = 0.1


class StoreBoard(Board):
    """A board in a c10d store (https://docs.pytorch.org/docs/stable/distributed.html#stores).

    Args:
        store: A PrefixStore of this group.
        rank: This rank.
        world_size: Number of ranks of the group.
    """

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self._store = store
        # The watch has its own connection, because this rank may be waiting in `store`.
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
            self._store.set(own, "")  # set() has no answer: with the wait it is one round trip
            self._own_keys.append(own)
            if self._wait(theirs, min(_PATIENCE_S, timeout_s)):
                return None
            self._store.set(f"call/{number}/{self._rank}", record.decode(errors="replace"))
            too_late = any(self._get(f"gave up/{r}") is not None for r in self._others)
            overdue_at = time.monotonic()
            # the others then publish their calls too
            deadline = max(deadline, overdue_at + _PATIENCE_S / 2)
            while True:
                entries = [self._entry(r, number, too_late) for r in range(self._world_size)]
                states = {entry.state for entry in entries}
                # timed out: now only the calls made so far count
                if states & {State.LEFT, State.GAVE_UP}:
                    deadline = min(deadline, overdue_at + _PATIENCE_S)
                if time.monotonic() > deadline or _is_settled(entries):
                    return entries
                if self._wait(theirs, _LOOK_S):
                    return None
        except dist.DistNetworkError as error:
            raise GroupDeadError(
                f"rank {self._rank} cannot reach the store of the ranks:"
                f" {str(error).splitlines()[0]}",
                "rank 0 hosts it: find out how rank 0 ended",
            ) from error

    def _wait(self, keys: list[str], timeout_s: float) -> bool:
        try:
            self._store.wait(keys, timedelta(seconds=timeout_s))
        except dist.DistStoreError:
            return False
        return True

    def _entry(self, rank: int, number: int, too_late: bool) -> Entry:
        found = {kind: self._get(f"{kind}/{rank}") for kind in ("gave up", "left", "place")}
        record = self._get(f"call/{number}/{rank}")
        if too_late and found["gave up"] is not None:
            return Entry(State.GAVE_UP, b"", _text(found["place"]))
        if record is not None:
            return Entry(State.CALLED, record)
        if found["left"] is not None:
            return Entry(State.LEFT, b"", _text(found["left"]))
        return Entry(State.LATE, b"", _text(found["place"]))

    def _get(self, key: str) -> bytes | None:
        return self._store.get(key) if self._store.check([key]) else None

    def absent(self) -> dict[int, str]:
        try:
            found = {rank: self._get(f"left/{rank}") for rank in self._others}
        except dist.DistNetworkError:
            return {}  # the rank that hosts the store has ended
        return {rank: _text(place) for rank, place in found.items() if place is not None}

    def give_up(self, number: int) -> None:
        self._store.set(f"gave up/{self._rank}", str(number))
        while self._own_keys:  # else a rank that calls later would find them and continue
            self._store.delete_key(self._own_keys.popleft())

    def leave(self, place: str) -> None:
        try:
            self._store.set(f"left/{self._rank}", place)
        except dist.DistNetworkError:
            pass  # rank 0 has ended first, and the store with it

    def locate(self, place: str) -> None:
        try:
            self._aside.set(f"place/{self._rank}", place)
            while len(self._own_keys) > 2:  # all ranks have read a call that is two calls old
                self._aside.delete_key(self._own_keys.popleft())
        except dist.DistNetworkError:
            pass

    def close(self) -> None:
        """Nothing to do: the connections end with the objects."""


def _is_settled(entries: list[Entry]) -> bool:
    """Return whether every rank has called or left, and their calls differ."""
    states = [entry.state for entry in entries]
    if State.LATE in states:
        return False
    called = {decode(entry.record).what for entry in entries if entry.state is State.CALLED}
    return len(called) > 1 or set(states) != {State.CALLED}


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode(errors="replace")
