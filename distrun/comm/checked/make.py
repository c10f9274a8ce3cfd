"""Makes the board of a group: in shared memory on one host, in the store across hosts."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from torch.distributed.distributed_c10d import PrefixStore, Store

from distrun.comm.checked.board import Board
from distrun.comm.checked.shared_memory import SharedMemoryBoard, host_key, new_file
from distrun.comm.checked.store import StoreBoard
from distrun.comm.objects import Objects
from distrun.processes import start_time


def make_board(group: Objects, store: Store, *, share_memory: bool = True) -> Board:
    """Make the board of a group; every rank of the group must call this.

    Args:
        group: The group, without a checker yet: it sends a few small messages.
        store: The store of the ranks.
        share_memory: Use shared memory if all ranks are on one host.
    """
    everyone = group.all_gather_object((host_key(), os.getpid(), start_time(os.getpid())))
    if share_memory and len({host for host, _, _ in everyone}) == 1:
        board = _in_memory(group, [(pid, started) for _, pid, started in everyone])
        if board is not None:
            return board
    name = group.broadcast_object(uuid.uuid4().hex)
    return StoreBoard(PrefixStore(f"distrun/{name}", store), group.rank, group.world_size)


def _in_memory(group: Objects, processes: list[tuple[int, str]]) -> SharedMemoryBoard | None:
    """Make a board in shared memory; return None on every rank if one of them cannot."""
    path, board = None, None
    try:
        path = new_file(group.world_size) if group.rank == 0 else None
    except OSError:
        pass  # /dev/shm is full: the store works too
    shared: Path | None = group.broadcast_object(path)
    try:
        if shared is not None:
            board = SharedMemoryBoard(shared, group.rank, processes)
    except OSError:
        pass  # /dev/shm is not the same
    there = all(group.all_gather_object(board is not None))
    if path is not None:
        path.unlink()  # the memory is freed when no rank maps it any more
    if board is not None and not there:
        board.close()
    return board if there else None
