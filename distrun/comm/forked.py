"""Refuses groups in a forked child: the threads that send and receive are missing there.

A DataLoader worker or a multiprocessing child has its parent's objects. A collective there would
wait for ever, or receive a message meant for the parent.
"""

from __future__ import annotations

import os
import weakref

import torch.distributed as dist

from distrun.comm.errors import ForkedError
from distrun.comm.group import Group

_groups: weakref.WeakSet[Group] = weakref.WeakSet()
_inherited: list[object] = []
"""The default group of torch.distributed, in a child of the process that made it."""
_HINT = "make the calls in the rank's own process, or start the child by spawn without a world"


def refuse_in_children(group: Group) -> None:
    """Make every call on this group fail in processes forked from this one."""
    _groups.add(group)


def require_own_group(call: str) -> None:
    """Refuse torch's default group where it was made before the fork.

    Raises:
        ForkedError: It was.
    """
    if _inherited and dist.is_initialized() and dist.group.WORLD is _inherited[0]:
        raise ForkedError(
            f"{call}: this process was forked from a rank, whose process group it cannot use",
            _HINT,
        )


def _in_child() -> None:
    parent = os.getppid()
    if dist.is_initialized():
        _inherited[:] = [dist.group.WORLD]
    for group in list(_groups):
        group.refuse(
            ForkedError(
                f"{group.name} belongs to process {parent}, from which this one was forked", _HINT
            )
        )


os.register_at_fork(after_in_child=_in_child)
