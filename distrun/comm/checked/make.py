"""Makes the board of a group: shared memory on one host, the store across hosts."""

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
    """Make the board of a group; every rank of it has to call this.

    Args:
        group: Has no checker yet: a few small messages go over it.
        store: Where the ranks met.
        share_memory: Use memory where all ranks are on one host.
    """
    everyone = group.all_gather_object((host_key(), os.getpid(), start_time(os.getpid())))
    if share_memory and len({host for host, _, _ in everyone}) == 1:
        board = _in_memory(group, [(pid, started) for _, pid, started in everyone])
        if board is not None:
            return board
    name = group.broadcast_object(uuid.uuid4().hex)
    return StoreBoard(PrefixStore(f"distrun/{name}", store), group.rank, group.world_size)


def _in_memory(group: Objects, processes: list[tuple[int, str]]) -> SharedMemoryBoard | None:
    """Make a board in memory, or None, on every rank, if one of them cannot."""
    path, board = None, None
    try:
        path = new_file(group.world_size) if group.rank == 0 else None
    except OSError:
        pass  # a full /dev/shm: the store does as well
    shared: Path | None = group.broadcast_object(path)
    try:
        if shared is not None:
            board = SharedMemoryBoard(shared, group.rank, processes)
    except OSError:
        pass  # not the same /dev/shm after all
    there = all(group.all_gather_object(board is not None))
    if path is not None:
        path.unlink()  # the memory lives as long as a rank maps it, and leaves nothing behind
    if board is not None and not there:
        board.close()
    return board if there else None
