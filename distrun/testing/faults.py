"""Injects faults, so that a test can show that the code under test detects them.

    run_ranks(train, world_size=4, faults=[faults.delay(rank=2, seconds=0.5)])

or, inside a function that every rank runs,

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
    """A fault that is injected into one message of one rank.

    `delay`, `kill` and `corrupt` make them.
    """

    kind: str
    rank: int
    at: int | None
    """The rank's message that it is injected into, counted from 1; None: every message."""
    seconds: float = 0.0
    where: Where = "result"

    @contextmanager
    def on(self, world: World, *, must_occur: bool = True) -> Iterator[None]:
        """Inject the fault into a group and its parts until the context ends.

        Args:
            world: The group.
            must_occur: Whether it is an error if the fault did not occur.

        Raises:
            UsageError: The context ended, and the rank sent too few messages for the fault to
                occur.
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
                f"{self.kind}(rank={self.rank}, at={self.at}) never occurred: that rank sent"
                f" {faulty.count} messages"
            )


def delay(rank: int, seconds: float, *, at: int | None = 1) -> Fault:
    """Make a rank sleep before it sends a message.

    Args:
        rank: The rank.
        seconds: How long it sleeps.
        at: The message, counted from 1; None: every message.
    """
    return Fault("delay", rank, at, seconds=seconds)


def kill(rank: int, *, at: int | None = 1) -> Fault:
    """Kill a rank by SIGKILL just before it sends a message; a thread ends by an exception.

    Args:
        rank: The rank.
        at: The message, counted from 1; None: every message.
    """
    return Fault("kill", rank, at)


def corrupt(rank: int, *, at: int | None = 1, where: Where = "result") -> Fault:
    """Flip one bit of a message: the highest of the first element's last byte.

    Args:
        rank: The rank.
        at: The message, counted from 1; None: every message.
        where: "result": what this rank receives; "input": what it sends to the others.
    """
    return Fault("corrupt", rank, at, where=where)


class Faulty:
    """A transport with an injected fault. It passes on all attributes that it does not define.

    Args:
        transport: Carries the messages.
        fault: Injected into one message or all.
        counter: One element: the number of messages of the group and its parts.
    """

    def __init__(self, transport: Transport, fault: Fault, counter: list[int]) -> None:
        self.wrapped = transport
        self._fault = fault
        self._counter = counter

    @property
    def count(self) -> int:
        """The number of messages so far."""
        return self._counter[0]

    def subgroup(self, groups: Sequence[Sequence[int]], name: str) -> Faulty | None:
        """Make subgroups that have the fault too."""
        part = self.wrapped.subgroup(groups, name)
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
            raise Killed(f"rank {self._fault.rank} was killed by an injected fault")
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
    """A message whose result is corrupted when it has arrived."""

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
"""Method of a transport -> the arguments that receive the result and hold the input."""


def _flip(x: Tensor) -> None:
    import torch

    if x.numel():
        octets = x.view(-1)[:1].view(torch.uint8)
        octets[-1] ^= 0x80


def __dir__() -> list[str]:
    return ["Fault", "Killed", "corrupt", "delay", "kill"]
