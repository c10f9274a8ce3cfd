"""The interface that the collectives send through: c10d, or threads in tests.

Every tensor passed to a transport is contiguous, on the transport's device, and of a dtype that the
op supports (see `distrun.comm.ops`). Ranks are ranks of the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Work(Protocol):
    """A started message."""

    def wait(self) -> object:
        """Wait for the message; on CUDA, make the current stream wait."""

    def is_completed(self) -> bool:
        """Return whether `wait` would return at once."""


class Transport(Protocol):
    """The messages of one group of ranks."""

    rank: int
    world_size: int
    device: torch.device
    backend: str
    control_device: torch.device
    """The device for numbers and objects that Python reads: the CPU if possible."""

    def all_reduce(self, x: Tensor, op: str, async_op: bool) -> Work:
        """Reduce x over the ranks, in place on all of them."""

    def reduce(self, x: Tensor, dst: int, op: str, async_op: bool) -> Work:
        """Reduce x over the ranks, in place on dst; elsewhere x is left undefined."""

    def broadcast(self, x: Tensor, src: int, async_op: bool) -> Work:
        """Overwrite x with that of src."""

    def all_gather(self, out: Tensor, x: Tensor, async_op: bool) -> Work:
        """Fill out [n·k] with x [k] of every rank, in rank order."""

    def reduce_scatter(self, out: Tensor, x: Tensor, op: str, async_op: bool) -> Work:
        """Reduce x [n·k] over the ranks, and fill out [k] with this rank's part."""

    def all_to_all(
        self, out: Tensor, x: Tensor, out_sizes: Sequence[int], sizes: Sequence[int], async_op: bool
    ) -> Work:
        """Send `sizes[i]` rows of x to rank i, and fill out with `out_sizes[i]` rows of it."""

    def send(self, x: Tensor, dst: int, tag: int) -> Work:
        """Send x to dst."""

    def recv(self, x: Tensor, src: int, tag: int) -> Work:
        """Fill x with what src sends."""

    def barrier(self, async_op: bool) -> Work:
        """Wait until every rank has called barrier."""

    def subgroup(self, groups: Sequence[Sequence[int]], name: str) -> Transport | None:
        """Make a group for each list of ranks; return this rank's group, or None.

        Args:
            groups: The ranks of each.
            name: What torch is to call them in its records; "" for nothing.
        """

    @property
    def wrapped(self) -> Transport:
        """The transport itself; a test's faults wrap another one."""
        return self

    def close(self, *, failed: bool) -> None:
        """Release the group's resources; does not wait for other ranks if `failed`."""
