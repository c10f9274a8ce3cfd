"""The ops: their buffers, one iteration on a rank, and the expected result.

They use the transport of a world, which is c10d without the additions of `distrun.comm`'s
collectives. In place means that the result replaces the input. If c10d only has the op in place,
"out of place" is a copy followed by the op.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from distrun.bandwidth import DEFINITIONS
from distrun.bench import values
from distrun.comm import World

Wait = Callable[[], object]


@dataclass(frozen=True)
class Wanted:
    """The parameters of a row."""

    nbytes: int
    dtype: torch.dtype
    redop: str
    root: int
    in_place: bool


class Operation:
    """One row, ready to run on one rank: one op, one size, in or out of place.

    Attributes:
        count: Number of elements, as the definition counts them.
        out: The result, on the ranks that get one.
    """

    name: str
    reduces = False
    rooted = False

    def __init__(self, world: World, wanted: Wanted) -> None:
        self.world = world
        self.wanted = wanted
        self.n = world.world_size
        self.count = elements(self.name, wanted.nbytes, wanted.dtype, self.n)
        self.part = self.count // self.n
        self.out = torch.empty(0)
        self.given = torch.empty(0)
        self.make()

    @property
    def nbytes(self) -> int:
        """The size, after rounding to whole elements and parts."""
        return self.count * self.wanted.dtype.itemsize

    def make(self) -> None:
        """Make the buffers."""
        raise NotImplementedError

    def reset(self) -> None:
        """Fill the input buffers, before a checked run."""

    def start(self) -> Wait:
        """Start one iteration; return a function that waits for it."""
        raise NotImplementedError

    def expected(self) -> Tensor | None:
        """Return the expected `out`; None if this rank gets no result."""
        raise NotImplementedError

    def source(self, index: int) -> int | None:
        """Return the rank that an element of `out` came from; None: from all ranks."""
        return None

    # Shared by the ops.

    def pattern(self, count: int, rank: int) -> Tensor:
        """Return a rank's input to an op that moves data."""
        return values.moved(count, rank, self.wanted.dtype, self.world.device)

    def summand(self, count: int) -> Tensor:
        """Return this rank's input to a reduction."""
        wanted, world = self.wanted, self.world
        return values.summand(count, world.rank, self.n, wanted.dtype, wanted.redop, world.device)

    def sum(self, count: int) -> Tensor:
        """Return the result of a reduction."""
        wanted = self.wanted
        return values.reduced(count, self.n, wanted.dtype, wanted.redop, self.world.device)

    def blank(self, count: int) -> Tensor:
        """Return a buffer of zeros."""
        return torch.zeros(count, dtype=self.wanted.dtype, device=self.world.device)


def elements(op: str, nbytes: int, dtype: torch.dtype, world_size: int) -> int:
    """Return the number of elements of a size: at least one per part, equal in all parts."""
    parts = world_size if op in DEFINITIONS and DEFINITIONS[op].divides else 1
    return max(1, nbytes // dtype.itemsize // parts) * parts


class AllReduce(Operation):
    """Every rank gets the sum."""

    name = "all_reduce"
    reduces = True

    def make(self) -> None:
        self.given = self.summand(self.count)
        self.out = self.given.clone()

    def reset(self) -> None:
        self.out.copy_(self.given)

    def start(self) -> Wait:
        if not self.wanted.in_place:
            self.out.copy_(self.given)
        return self.world.transport.all_reduce(self.out, self.wanted.redop, True).wait

    def expected(self) -> Tensor | None:
        return self.sum(self.count)


class Reduce(AllReduce):
    """The root gets the sum."""

    name = "reduce"
    rooted = True

    def start(self) -> Wait:
        if not self.wanted.in_place:
            self.out.copy_(self.given)
        wanted = self.wanted
        return self.world.transport.reduce(self.out, wanted.root, wanted.redop, True).wait

    def expected(self) -> Tensor | None:
        return self.sum(self.count) if self.world.rank == self.wanted.root else None


class Broadcast(Operation):
    """Every rank gets the root's data."""

    name = "broadcast"
    rooted = True

    def make(self) -> None:
        self.given = self.pattern(self.count, self.world.rank)
        self.out = self.given.clone()

    def reset(self) -> None:
        self.out.copy_(self.given)

    def start(self) -> Wait:
        if not self.wanted.in_place:
            self.out.copy_(self.given)
        return self.world.transport.broadcast(self.out, self.wanted.root, True).wait

    def expected(self) -> Tensor | None:
        return self.pattern(self.count, self.wanted.root)

    def source(self, index: int) -> int | None:
        return self.wanted.root


class AllGather(Operation):
    """Every rank gets the parts of all."""

    name = "all_gather"

    def make(self) -> None:
        self.out = self.blank(self.count)
        mine = self.out[self.world.rank * self.part :][: self.part]
        self.given = mine if self.wanted.in_place else self.blank(self.part)

    def reset(self) -> None:
        self.out.zero_()
        self.given.copy_(self.pattern(self.part, self.world.rank))

    def start(self) -> Wait:
        return self.world.transport.all_gather(self.out, self.given, True).wait

    def expected(self) -> Tensor | None:
        return torch.cat([self.pattern(self.part, rank) for rank in range(self.n)])

    def source(self, index: int) -> int | None:
        return index // self.part


class ReduceScatter(Operation):
    """Each rank gets one part of the sum."""

    name = "reduce_scatter"
    reduces = True

    def make(self) -> None:
        self.given = self.summand(self.count)
        mine = self.given[self.world.rank * self.part :][: self.part]
        self.out = mine if self.wanted.in_place else self.blank(self.part)

    def reset(self) -> None:
        self.given.copy_(self.summand(self.count))

    def start(self) -> Wait:
        return self.world.transport.reduce_scatter(
            self.out, self.given, self.wanted.redop, True
        ).wait

    def expected(self) -> Tensor | None:
        return self.sum(self.count).view(self.n, -1)[self.world.rank]


class AllToAll(Operation):
    """Each rank sends each other rank a part. c10d has it only out of place."""

    name = "all_to_all"

    def make(self) -> None:
        self.given, self.out = self.blank(self.count), self.blank(self.count)
        self.sizes, self.out_sizes = [self.part] * self.n, [self.part] * self.n

    def reset(self) -> None:
        self.given.copy_(self.pattern(self.count, self.world.rank))
        self.out.zero_()

    def start(self) -> Wait:
        transport = self.world.transport
        return transport.all_to_all(self.out, self.given, self.out_sizes, self.sizes, True).wait

    def expected(self) -> Tensor | None:
        rows = [self.pattern(self.count, rank).view(self.n, -1) for rank in range(self.n)]
        return torch.cat([row[self.world.rank] for row in rows])

    def source(self, index: int) -> int | None:
        return index // self.part


class Gather(AllToAll):
    """The root gets the parts of all: an all_to_all in which only the root receives data."""

    name = "gather"
    rooted = True

    def make(self) -> None:
        root, here = self.wanted.root, self.world.rank == self.wanted.root
        self.given = self.blank(self.part)
        self.out = self.blank(self.count if here else 0)
        self.sizes = [self.part if rank == root else 0 for rank in range(self.n)]
        self.out_sizes = [self.part if here else 0] * self.n

    def reset(self) -> None:
        self.given.copy_(self.pattern(self.part, self.world.rank))
        self.out.zero_()

    def expected(self) -> Tensor | None:
        if self.world.rank != self.wanted.root:
            return None
        return torch.cat([self.pattern(self.part, rank) for rank in range(self.n)])


class Scatter(AllToAll):
    """Each rank gets its part of the root's data."""

    name = "scatter"
    rooted = True

    def make(self) -> None:
        root, here = self.wanted.root, self.world.rank == self.wanted.root
        self.given = self.blank(self.count if here else 0)
        self.out = self.blank(self.part)
        self.sizes = [self.part if here else 0] * self.n
        self.out_sizes = [self.part if rank == root else 0 for rank in range(self.n)]

    def reset(self) -> None:
        self.given.copy_(self.pattern(len(self.given), self.wanted.root))
        self.out.zero_()

    def expected(self) -> Tensor | None:
        whole = self.pattern(self.count, self.wanted.root)
        return whole.view(self.n, -1)[self.world.rank]

    def source(self, index: int) -> int | None:
        return self.wanted.root


class SendRecv(Operation):
    """A ring: each rank sends to the next and receives from the previous."""

    name = "sendrecv"

    def make(self) -> None:
        self.given, self.out = self.blank(self.count), self.blank(self.count)

    def reset(self) -> None:
        self.given.copy_(self.pattern(self.count, self.world.rank))
        self.out.zero_()

    def start(self) -> Wait:
        transport, rank = self.world.transport, self.world.rank
        calls = [
            partial(transport.send, self.given, (rank + 1) % self.n, 0),
            partial(transport.recv, self.out, (rank - 1) % self.n, 0),
        ]
        # Between two ranks NCCL keeps the order of the calls: both may not send first.
        works = [call() for call in (calls[::-1] if rank % 2 else calls)]
        return lambda: [work.wait() for work in works]

    def expected(self) -> Tensor | None:
        return self.pattern(self.count, (self.world.rank - 1) % self.n)

    def source(self, index: int) -> int | None:
        return (self.world.rank - 1) % self.n


class PingPong(Operation):
    """Rank 0 sends to the last rank, which sends back; the others are idle."""

    name = "pingpong"

    def make(self) -> None:
        self.given, self.out = self.blank(self.count), self.blank(self.count)

    def reset(self) -> None:
        self.given.copy_(self.pattern(self.count, self.world.rank))
        self.out.zero_()

    def start(self) -> Wait:
        transport, rank, last = self.world.transport, self.world.rank, self.n - 1
        if rank == 0:
            transport.send(self.given, last, 0).wait()
            transport.recv(self.out, last, 0).wait()
        elif rank == last:
            transport.recv(self.out, 0, 0).wait()
            transport.send(self.given, 0, 0).wait()
        return lambda: None

    def expected(self) -> Tensor | None:
        peers = {0: self.n - 1, self.n - 1: 0}
        if self.world.rank not in peers:
            return None
        return self.pattern(self.count, peers[self.world.rank])

    def source(self, index: int) -> int | None:
        return self.n - 1 - self.world.rank


class Barrier(Operation):
    """All ranks wait for one another. It has no size."""

    name = "barrier"

    def make(self) -> None:
        self.count = 0

    def start(self) -> Wait:
        return self.world.transport.barrier(True).wait

    def expected(self) -> Tensor | None:
        return None


_CLASSES: tuple[type[Operation], ...] = (
    *(AllReduce, AllGather, ReduceScatter, Broadcast, Reduce, AllToAll),
    *(Gather, Scatter, SendRecv, PingPong, Barrier),
)
OPERATIONS = {each.name: each for each in _CLASSES}
