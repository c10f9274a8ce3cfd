"""Collectives on picklable Python objects."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from distrun.comm.errors import CommUsageError
from distrun.comm.gathering import Gathering


class Objects(Gathering):
    """Collectives on Python objects that can be pickled.

    They are synchronous and slower than tensors: use them for settings, names and counts.
        Unpickling runs code that the sender chooses; the ranks of a job trust one another.
    """

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return the objects of all ranks, in rank order.

        Uses two `all_gather`s, of lengths and of bytes; compare
        `torch.distributed.all_gather_object`.

        Args:
            value: The object of this rank.
        """
        data = require_picklable(value)
        self._begin("all_gather_object", ())
        lengths = [length for (length,) in self._everyones([len(data)])]
        longest = max(lengths)
        sent = self._bytes(data + bytes(longest - len(data)))
        found = sent.new_empty(self.world_size * longest)
        self._carry(
            "all_gather_object",
            lambda: [self.transport.all_gather(found, sent, False)],
            bool,
            False,
        )
        rows = found.view(self.world_size, longest)
        return [_loaded(row[:n]) for row, n in zip(rows, lengths, strict=True)]

    def gather_object(self, value: Any, dst: int = 0) -> list[Any] | None:
        """Return the objects of all ranks on dst, in rank order, and None elsewhere.

        Args:
            value: The object of this rank.
            dst: The rank that gets them.

        Raises:
            CommUsageError: There is no rank dst.
        """
        dst = self._require_rank("gather_object", "dst", dst)
        data = require_picklable(value)
        self._begin("gather_object", (), dst=dst)
        lengths = [length for (length,) in self._everyones([len(data)])]
        here = self.rank == dst
        coming = lengths if here else [0] * self.world_size
        found = self._exchanged(
            data, [len(data) if r == dst else 0 for r in range(self.world_size)], coming
        )
        return [_loaded(part) for part in found.split_with_sizes(lengths)] if here else None

    def broadcast_object(self, value: Any = None, src: int = 0) -> Any:
        """Return the object of src on every rank.

        Args:
            value: The object; read on src only.
            src: The rank whose object is used.

        Raises:
            CommUsageError: There is no rank src.
        """
        src = self._require_rank("broadcast_object", "src", src)
        data = require_picklable(value) if self.rank == src else b""
        self._begin("broadcast_object", (), src=src)
        return self._broadcast_pickled(value, data, src)

    def _broadcast_object(self, value: Any, src: int) -> Any:
        return self._broadcast_pickled(value, pickle.dumps(value), src)

    def _broadcast_pickled(self, value: Any, data: bytes, src: int) -> Any:
        length = torch.tensor([len(data)], device=self.transport.control_device)
        self._send_all(length, src)
        payload = self._bytes(data) if self.rank == src else self._bytes(bytes(int(length)))
        self._send_all(payload, src)
        return value if self.rank == src else _loaded(payload)

    def scatter_object(self, values: Sequence[Any] | None = None, src: int = 0) -> Any:
        """Return, on rank i, `values[i]` of src.

        Args:
            values: One object per rank; read on src only.
            src: The rank whose objects are used.

        Raises:
            CommUsageError: There is no rank src, or src passed another number of objects than there
                are ranks (raised on every rank).
        """
        src = self._require_rank("scatter_object", "src", src)
        here = self.rank == src
        parts = [require_picklable(v) for v in values] if here and values is not None else []
        self._begin("scatter_object", (), src=src)
        count = (len(values) if values is not None else 0) if here else None
        count = self._broadcast_object(count, src)
        if count != self.world_size:
            raise CommUsageError(
                f"scatter_object: rank {src} passed {count} objects for {self.world_size} ranks"
            )
        sizes = [len(part) for part in parts] or [0] * self.world_size
        coming = [0] * self.world_size
        coming[src] = self._broadcast_object(sizes, src)[self.rank]
        return _loaded(self._exchanged(b"".join(parts), sizes, coming))

    def _exchanged(self, data: bytes, sizes: Sequence[int], coming: Sequence[int]) -> Tensor:
        sent = self._bytes(data if any(sizes) else b"")
        found = sent.new_empty(sum(coming))
        self._carry(
            "all_to_all",
            lambda: [self.transport.all_to_all(found, sent, coming, sizes, False)],
            bool,
            False,
        )
        return found

    def _send_all(self, x: Tensor, src: int) -> None:
        self._carry("broadcast", lambda: [self.transport.broadcast(x, src, False)], bool, False)

    def _bytes(self, data: bytes) -> Tensor:
        made = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0)
        return made.to(self.transport.control_device, torch.uint8)


def require_picklable(value: Any) -> bytes:
    """Return a value pickled.

    Raises:
        CommUsageError: It cannot be pickled.
    """
    try:
        return pickle.dumps(value)
    except Exception as error:  # its __reduce__ may raise anything
        raise CommUsageError(
            f"a {type(value).__name__} cannot be pickled, so it cannot be sent: {error}"
        ) from error


def _loaded(data: Tensor) -> Any:
    return pickle.loads(data.cpu().numpy().tobytes())
