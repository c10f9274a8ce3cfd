"""Faults that a test brings about, to show that the code under test notices.

    run_ranks(train, world_size=4, faults=[faults.delay(rank=2, seconds=0.5)])

or, inside of a function that every rank runs,

    with faults.corrupt(rank=1).on(world):
        world.broadcast(weights)
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from distrun.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from distrun.comm.transport import Transport, Work
    from distrun.comm.world import World

Where = Literal["result", "input"]


class Killed(BaseException):
    """A rank that is a thread was killed."""


@dataclass(frozen=True)
class Fault:
    """Something that befalls one rank in one of its messages.

    `delay`, `kill` and `corrupt` make them.
    """

    kind: str
    rank: int
    at: int | None
    """Befalls this message of the rank, counted from 1 since the fault is there; None: each."""
    seconds: float = 0.0
    where: Where = "result"

    @contextmanager
    def on(self, world: World, *, must_occur: bool = True) -> Iterator[None]:
        """Have the fault befall a group, and its parts, for as long as the context lasts.

        Args:
            world: The group.
            must_occur: Whether it is an error if it does not.

        Raises:
            UsageError: It ended, and there were too few messages for it to befall.
        """
        if world.rank != self.rank:
            yield
            return
        before = world.transport
        faulty = Faulty(before, self, [0])
        world.transport = cast("Transport", faulty)
        try:
            yield
        finally:
            world.transport = before
        if must_occur and self.at is not None and faulty.count < self.at:
            raise UsageError(
                f"{self.kind}(rank={self.rank}, at={self.at}) never befell: that rank sent"
                f" {faulty.count} messages"
            )


def delay(rank: int, seconds: float, *, at: int | None = 1) -> Fault:
    """Have a rank sleep before it sends a message.

    Args:
        rank: The rank.
        seconds: How long.
        at: Before its which message, counted from 1; None: each.
    """
    return Fault("delay", rank, at, seconds=seconds)


def kill(rank: int, *, at: int | None = 1) -> Fault:
    """Have a rank end by SIGKILL when it is about to send a message; a thread ends at once.

    Args:
        rank: The rank.
        at: At its which message, counted from 1; None: each.
    """
    return Fault("kill", rank, at)


def corrupt(rank: int, *, at: int | None = 1, where: Where = "result") -> Fault:
    """Turn over one bit of a message: the highest of the first element's last byte.

    Args:
        rank: The rank.
        at: In its which message, counted from 1; None: each.
        where: "result": what this rank receives; "input": what it gives to the others.
    """
    return Fault("corrupt", rank, at, where=where)


class Faulty:
    """A transport that a fault befalls. What it does not name goes through.

    Args:
        transport: Carries the messages.
        fault: Befalls them.
        counter: One number: how many there were, over a group and its parts.
    """

    def __init__(self, transport: Transport, fault: Fault, counter: list[int]) -> None:
        self.wrapped = transport
        self._fault = fault
        self._counter = counter

    @property
    def count(self) -> int:
        """How many messages there were."""
        return self._counter[0]

    def subgroup(self, groups: Sequence[Sequence[int]]) -> Faulty | None:
        """Make parts that the fault befalls too."""
        part = self.wrapped.subgroup(groups)
        return None if part is None else Faulty(part, self._fault, self._counter)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.wrapped, name)
        if name in _MESSAGES:
            return lambda *args: self._send(name, found, args)
        return found

    def _send(self, name: str, send: Callable[..., Work], args: tuple[Any, ...]) -> Work:
        self._counter[0] += 1
        fault = self._fault
        if fault.at is not None and self.count != fault.at:
            return send(*args)
        if fault.kind == "delay":
            time.sleep(fault.seconds)
        elif fault.kind == "kill":
            self._die()
        elif fault.kind == "corrupt":
            return self._corrupt(name, send, args)
        return send(*args)

    def _die(self) -> None:
        if self.wrapped.backend == "threads":
            raise Killed(f"rank {self._fault.rank} was killed by a fault of the test")
        os.kill(os.getpid(), signal.SIGKILL)

    def _corrupt(self, name: str, send: Callable[..., Work], args: tuple[Any, ...]) -> Work:
        result, given = _MESSAGES[name](args)
        if result is None or given is None:
            return send(*args)
        if self._fault.where == "input":
            _flip(given)
            return send(*args)
        return _Corrupting(send(*args), result)


class _Corrupting:
    """A message whose result is wrong once it is there."""

    def __init__(self, work: Work, result: Tensor) -> None:
        self._work = work
        self._result = result

    def wait(self) -> None:
        self._work.wait()
        _flip(self._result)

    def is_completed(self) -> bool:
        return self._work.is_completed()


_Buffers = tuple["Tensor | None", "Tensor | None"]


def _both(args: Sequence[Any]) -> _Buffers:
    return args[0], args[0]


def _out_and_in(args: Sequence[Any]) -> _Buffers:
    return args[0], args[1]


_MESSAGES: dict[str, Callable[[Sequence[Any]], _Buffers]] = {
    "barrier": lambda args: (None, None),
    "all_reduce": _both,
    "reduce": _both,
    "broadcast": _both,
    "send": _both,
    "recv": _both,
    "all_gather": _out_and_in,
    "reduce_scatter": _out_and_in,
    "all_to_all": _out_and_in,
}
"""Method of a transport -> which of its arguments take the result, and hold what is given."""


def _flip(x: Tensor) -> None:
    import torch

    if x.numel():
        octets = x.view(-1)[:1].view(torch.uint8)
        octets[-1] ^= 0x80


def __dir__() -> list[str]:
    return ["Fault", "Killed", "corrupt", "delay", "kill"]
