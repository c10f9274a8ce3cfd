"""What all collectives of a group share: checks, sending, waiting and errors."""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from distrun.comm.errors import (
    ClosedError,
    CommError,
    CommUsageError,
    ForkedError,
    GroupDeadError,
    RankLateError,
    TwoThreadsError,
)
from distrun.comm.handle import Handle
from distrun.comm.site import call_site
from distrun.comm.transport import Transport, Work

T = TypeVar("T")


class Checker(Protocol):
    """Compares a call with those of the other ranks before anything is sent."""

    def check(self, call: str, tensors: Sequence[Tensor], rule: dict[str, Any]) -> None:
        """Return if every rank makes this call, else raise on every rank."""

    def absent(self, *, wait: bool) -> str:
        """Return which ranks have closed the group or ended, and how, or ""; may wait for one."""

    def leave(self, why: str, *, dead: bool) -> None:
        """Tell the others that this rank makes no more calls."""


class Group:
    """A group of ranks: its members, and whether it can still be used.

    Args:
        transport: Carries its messages.
        local_rank: This rank's number on its node.
        checker: Compares every call first (checked mode), or None.
        name: For messages: "the world", "tp", …
    """

    def __init__(
        self, transport: Transport, local_rank: int, checker: Checker | None, name: str
    ) -> None:
        self.transport = transport
        """The transport of the messages; for code that extends this layer."""
        self._checker = checker
        self._unfit: CommError | ClosedError | ForkedError | None = None
        self.name = name
        self.rank = transport.rank
        """This rank's number in the group, from 0."""
        self.world_size = transport.world_size
        """The number of ranks in the group."""
        self.local_rank = local_rank
        """This rank's number on its node, and the index of its GPU."""
        self.device = transport.device
        """The device that tensors must be on."""
        self.backend = transport.backend
        """The backend: gloo, nccl, or threads in tests."""

    def refuse(self, why: CommError | ForkedError) -> None:
        """Make every later call raise this error."""
        self._unfit = why

    def _begin(self, call: str, tensors: Sequence[Tensor], **rule: Any) -> None:
        """Refuse a wrong call; in checked mode, compare it with the other ranks' calls.

        Args:
            call: The collective's name.
            tensors: The tensors that this rank passes.
            **rule: What else must be equal: op, root, dim, sizes.
        """
        self._require_fit(call, tensors)
        if self._checker is not None:
            try:
                self._checker.check(call, tensors, rule)
            except TwoThreadsError as error:
                self.refuse(error)
                raise
            except (RankLateError, GroupDeadError) as error:
                self._unfit = GroupDeadError(f"{self.name} is dead: {error.message}", error.hint)
                raise

    def _require_fit(self, call: str, tensors: Sequence[Tensor]) -> None:
        """Refuse a closed or dead group, and tensors that cannot be sent."""
        if self._unfit is not None:
            raise type(self._unfit)(self._unfit.message, self._unfit.hint)
        for x in tensors:
            if (
                type(x) is not Tensor
                or x.device != self.device
                or x.layout != torch.strided
                or x.is_nested
                or x.is_quantized
            ):
                self._require_usable(call, x)

    def _require_usable(self, call: str, x: Tensor) -> None:
        if hasattr(x, "to_local"):
            raise CommUsageError(
                f"{call} was given a {type(x).__name__}, which is sharded over the ranks",
                "pass x.to_local() (this rank's part) or x.full_tensor()",
            )
        if hasattr(x, "get_mask"):
            raise CommUsageError(
                f"{call} was given a {type(x).__name__}, which is two tensors",
                "pass x.get_data() and x.get_mask(), or x.to_tensor(0)",
            )
        if x.is_nested:
            raise CommUsageError(
                f"{call} was given a nested tensor", "pass x.unbind(), a list of plain tensors"
            )
        if x.is_quantized:
            raise CommUsageError(f"{call} was given a quantized tensor", "pass x.dequantize()")
        if x.layout != torch.strided:
            raise CommUsageError(f"{call} was given a {x.layout} tensor", "pass x.to_dense()")
        if type(x) is not Tensor and x.device == self.device and not _has_memory(x):
            raise CommUsageError(
                f"{call} was given a {type(x).__name__}, which has no memory of its own",
                "pass the plain tensors that it holds",
            )
        if x.device != self.device:
            raise CommUsageError(
                f"{call} was given a tensor on {x.device}, this group is on {self.device}",
                "pass x.to(world.device)",
            )

    def _require_rank(self, call: str, what: str, rank: int) -> int:
        """Return a rank of the group as an int; refuse anything else."""
        try:
            number = operator.index(rank)
        except TypeError:
            number = -1
        if not 0 <= number < self.world_size:
            raise CommUsageError(
                f"{call}: {what}={rank!r} is not a rank of {self.name}, which has ranks 0 to"
                f" {self.world_size - 1}"
            )
        return number

    def _carry(
        self,
        call: str,
        start: Callable[[], Sequence[Work]],
        finish: Callable[[], T],
        async_op: bool,
    ) -> T | Handle[T]:
        """Start messages; wait and return their result, or return a handle for it."""
        try:
            works = start()
        except RuntimeError as error:
            raise self._broken(call, error) from None  # it contains this error's text
        if async_op:
            return Handle(call, works, self._wait, finish, call_site())
        for work in works:
            self._wait(work, call)
        return finish()

    def _wait(self, work: Work, call: str) -> None:
        if isinstance(self._unfit, ForkedError):  # for a handle made before the fork
            raise ForkedError(self._unfit.message, self._unfit.hint)
        try:
            work.wait()
        except RuntimeError as error:
            raise self._broken(call, error) from None  # it contains this error's text

    def _broken(self, call: str, error: RuntimeError) -> CommError:
        """Record that the group is dead, and why: c10d's groups are unusable after an error."""
        if isinstance(error, CommError):
            return error
        first, *_ = str(error).splitlines() or [type(error).__name__]
        reason = re.sub(r"^\[.*?\] |This is typically.*", "", first)[:300].strip()
        timed_out = "timed out" in reason.lower() or "timeout" in reason.lower()
        gone = "" if self._checker is None else self._checker.absent(wait=not timed_out)
        what = gone or ("a rank did not answer in time" if timed_out else "a peer was lost")
        self._unfit = GroupDeadError(
            f"{call} on rank {self.rank} of {self.name} failed, and the group is dead: {what}"
            f" ({reason})",
            "find the rank that failed first; world.rebuild() makes a new group"
            + (
                ""
                if self._checker
                else "; DISTRUN_COMM_CHECK=1 names the rank that is late or lost"
            ),
        )
        return self._unfit


def _has_memory(x: Tensor) -> bool:
    if x.numel() == 0 or hasattr(x, "wait"):  # torch's own async result, which waits
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return x.data_ptr() != 0
    except RuntimeError:  # torch raises this for some of its own subclasses
        return False
