"""What torch's caching allocator holds on a GPU after a list of allocations: the reserved bytes.

It follows c10/cuda/CUDACachingAllocator.cpp with `expandable_segments:True`
(https://docs.pytorch.org/docs/stable/notes/cuda.html#memory-management): sizes are rounded up to
512 bytes, each stream has a pool of small blocks and one of large blocks, a request takes the
smallest free block that fits, the rest of it stays free, neighbours that are free are merged,
and a pool that has no such block grows at its end by whole pages. Pools never shrink.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

ROUNDING_NBYTES = 512
SMALL_NBYTES = 1 << 20
"""Requests up to this size are served from the pool of small blocks."""
SMALL_PAGE_NBYTES = 2 << 20
LARGE_PAGE_NBYTES = 20 << 20


class Event(NamedTuple):
    """One allocation, or the end of one.

    Attributes:
        block: Names the allocation; not used twice.
        nbytes: Its size; 0: the block is freed here.
        stream: The CUDA stream that it was made on. A block is used again only on its own.
    """

    block: int
    nbytes: int
    stream: str = "main"


def reserved_nbytes(events: Iterable[Event]) -> int:
    """Return the bytes that the allocator has reserved after these events, in order."""
    pools: dict[tuple[str, bool], _Pool] = defaultdict(_Pool)
    where: dict[int, tuple[_Pool, int, int]] = {}
    for event in events:
        if not event.nbytes:
            pool, start, size = where.pop(event.block)
            pool.free(start, size)
            continue
        size = -(-event.nbytes // ROUNDING_NBYTES) * ROUNDING_NBYTES
        small = size <= SMALL_NBYTES
        pool = pools[event.stream, small]
        start = pool.allocate(size, SMALL_PAGE_NBYTES if small else LARGE_PAGE_NBYTES)
        where[event.block] = (pool, start, size)
    return sum(pool.end for pool in pools.values())


class _Pool:
    """One address range that grows at its end."""

    def __init__(self) -> None:
        self.end = 0
        self._by_size: list[tuple[int, int]] = []  # (size, start) of the free blocks, sorted
        self._size_at: dict[int, int] = {}  # start -> size
        self._start_of: dict[int, int] = {}  # end -> start

    def allocate(self, size: int, page: int) -> int:
        """Return the start of a block of this size."""
        place = bisect_left(self._by_size, (size, 0))
        if place == len(self._by_size):
            return self._grow(size, page)
        whole, start = self._by_size[place]
        self._take(start)
        if whole > size:
            self._give(start + size, whole - size)
        return start

    def free(self, start: int, size: int) -> None:
        """Give a block back, merged with its free neighbours."""
        if (before := self._start_of.get(start)) is not None:
            size += self._take(before)
            start = before
        if start + size in self._size_at:
            size += self._take(start + size)
        self._give(start, size)

    def _grow(self, size: int, page: int) -> int:
        """Map pages until the free block at the end is large enough."""
        start = self._start_of.get(self.end, self.end)
        if start < self.end:
            self._take(start)
        self.end += -(-(start + size - self.end) // page) * page
        if self.end > start + size:
            self._give(start + size, self.end - start - size)
        return start

    def _give(self, start: int, size: int) -> None:
        insort(self._by_size, (size, start))
        self._size_at[start] = size
        self._start_of[start + size] = start

    def _take(self, start: int) -> int:
        size = self._size_at.pop(start)
        del self._by_size[bisect_left(self._by_size, (size, start))]
        del self._start_of[start + size]
        return size
