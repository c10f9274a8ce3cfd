"""Messages between threads: every rank adds a copy, and computes the result from all copies."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from distrun.comm.transport import Transport, Work
from distrun.testing.thread_hub import Hub
from distrun.testing.turns import Stalled

_COMBINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": operator.add,
    "mean": operator.add,
    "prod": operator.mul,
    "max": torch.maximum,
    "min": torch.minimum,
    "band": operator.and_,
    "bor": operator.or_,
    "bxor": operator.xor,
}


class ThreadTransport(Transport):
    """The messages of one group, on one rank.

    Args:
        hub: The hub of the run.
        key: Identifies the group.
        ranks: The group's ranks, as numbered in the world.
        rank: This rank, as numbered in the group.
        timeout_s: How long a message may take.
    """

    def __init__(
        self, hub: Hub, key: tuple[object, ...], ranks: Sequence[int], rank: int, timeout_s: float
    ) -> None:
        self.rank = rank
        self.world_size = len(ranks)
        self.device = self.control_device = torch.device("cpu")
        self.backend = "threads"
        self.exchanges = hub.exchanges(key, ranks)
        self._hub = hub
        self._key = key
        self._timeout_s = timeout_s
        self._number = 0
        self._splits = 0

    def all_reduce(self, x: Tensor, op: str, async_op: bool) -> Work:
        return self._exchange("all_reduce", x, lambda parts: x.copy_(_combined(parts, op)))

    def reduce(self, x: Tensor, dst: int, op: str, async_op: bool) -> Work:
        return self._exchange(
            "reduce",
            x,
            lambda parts: x.copy_(_combined(parts, op)) if self.rank == dst else None,
        )

    def broadcast(self, x: Tensor, src: int, async_op: bool) -> Work:
        return self._exchange("broadcast", x, lambda parts: x.copy_(parts[src]))

    def all_gather(self, out: Tensor, x: Tensor, async_op: bool) -> Work:
        return self._exchange(
            "all_gather",
            x,
            lambda parts: out.view(-1).copy_(torch.cat([p.view(-1) for p in parts])),
        )

    def reduce_scatter(self, out: Tensor, x: Tensor, op: str, async_op: bool) -> Work:
        def finish(parts: list[Tensor]) -> None:
            whole = _combined([p.view(-1) for p in parts], op)
            out.view(-1).copy_(whole.view(self.world_size, -1)[self.rank])

        return self._exchange("reduce_scatter", x, finish)

    def all_to_all(
        self, out: Tensor, x: Tensor, out_sizes: Sequence[int], sizes: Sequence[int], async_op: bool
    ) -> Work:
        def finish(parts: list[list[Tensor]]) -> None:
            mine = torch.cat([part[self.rank] for part in parts])
            out.copy_(mine)

        return self._exchange("all_to_all", x.clone().split_with_sizes(list(sizes)), finish)

    def send(self, x: Tensor, dst: int, tag: int) -> Work:
        self.exchanges.queue(self.rank, dst, tag).send(x.clone())
        return _Work(self, lambda: True, lambda: None, "send")  # the queue has no limit

    def recv(self, x: Tensor, src: int, tag: int) -> Work:
        queue = self.exchanges.queue(src, self.rank, tag)
        number = queue.await_next()

        def complete() -> None:
            if number not in queue.messages:
                self.fail("recv", [src])
            x.copy_(queue.messages.pop(number))

        return _Work(
            self,
            lambda: number in queue.messages or src in self.exchanges.left,
            complete,
            f"recv from rank {src}",
        )

    def barrier(self, async_op: bool) -> Work:
        return self._exchange("barrier", None, lambda parts: None)

    def subgroup(self, groups: Sequence[Sequence[int]], name: str) -> ThreadTransport | None:
        self._splits += 1
        for index, ranks in enumerate(groups):
            if self.rank in ranks:
                key = (*self._key, self._splits, index)
                names = [self.exchanges.ranks[rank] for rank in ranks]
                place = list(ranks).index(self.rank)
                return ThreadTransport(self._hub, key, names, place, self._timeout_s)
        return None

    def close(self, *, failed: bool) -> None:
        self.exchanges.left.setdefault(self.rank, "")

    def _exchange(self, kind: str, value: Any, finish: Callable[[list[Any]], object]) -> Work:
        self._number += 1
        number = self._number
        copy = value.clone() if isinstance(value, Tensor) else value
        self.exchanges.put("message", number, self.rank, (kind, copy))

        def complete() -> None:
            if missing := self.exchanges.ranks_without("message", number):
                self.fail(kind, missing)
            parts = self.exchanges.take("message", number)
            if any(other != kind for other, _ in parts):
                raise RuntimeError(
                    f"the ranks made different calls at once: {', '.join(k for k, _ in parts)}"
                )
            finish([part for _, part in parts])

        return _Work(self, lambda: self.exchanges.settled("message", number), complete, kind)

    def fail(self, kind: str, missing: Sequence[int]) -> None:
        """Raise: a message will never arrive."""
        raise RuntimeError(f"{kind}: connection closed by rank {', '.join(map(str, missing))}")

    def give_way(self) -> None:
        """Let the other ranks run as far as they can."""
        self.exchanges.turns.give_way(self.exchanges.ranks[self.rank])

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Let the other ranks run until a condition holds."""
        me = self.exchanges.ranks[self.rank]
        try:
            if not self.exchanges.turns.wait_until(me, condition, self._timeout_s):
                raise RuntimeError(f"{what} timed out after {self._timeout_s:g} s")
        except Stalled:
            raise RuntimeError(f"{what} is in a deadlock: every rank waits for another") from None


class _Work:
    """A message whose result is copied when it is waited for."""

    def __init__(
        self,
        transport: ThreadTransport,
        ready: Callable[[], bool],
        finish: Callable[[], object],
        what: str,
    ) -> None:
        self._transport = transport
        self._ready = ready
        self._finish: Callable[[], object] | None = finish
        self._what = what

    def wait(self) -> None:
        if self._finish is not None:
            self._transport.wait(self._ready, self._what)
            finish, self._finish = self._finish, None
            finish()

    def is_completed(self) -> bool:
        if self._finish is not None and not self._ready():
            # else no other rank would run, and a loop around this call would never end
            self._transport.give_way()
        return self._finish is None or self._ready()


def _combined(parts: Sequence[Tensor], op: str) -> Tensor:
    whole = reduce(_COMBINE[op], parts)
    return whole / len(parts) if op == "mean" else whole
