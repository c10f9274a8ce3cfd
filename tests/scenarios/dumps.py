"""A job that hangs under any launcher, and whose ranks dump torch's record and their stacks.

python dumps.py DIR FAULT: rank 1 does FAULT instead of the last all_reduce. Needs
TORCH_FR_BUFFER_SIZE. The ranks end when all have dumped.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import _dump_fr_trace, _dump_fr_trace_json

DIRECTORY, FAULT = Path(sys.argv[1]), sys.argv[2]


def load() -> None:
    if FAULT == "sleep":
        time.sleep(3600)  # HERE sleep
    elif FAULT == "broadcast":
        dist.broadcast(torch.ones(4, 4), 1)  # HERE broadcast
    elif FAULT == "receive":
        dist.recv(torch.ones(4, 4), 0)  # HERE receive
    elif FAULT == "lock":
        threading.Lock().acquire() and DONE.acquire()  # HERE lock


DONE = threading.Lock()
DONE.acquire()


def is_there(rank: int) -> bool:
    """Return whether this rank is where it will stay."""
    if rank == 1 and FAULT != "broadcast":
        frame = sys._current_frames()[threading.main_thread().ident or 0]
        while frame and frame.f_code is not load.__code__:
            frame = frame.f_back
        return frame is not None
    entries = json.loads(text()).get("entries", [])
    return len(entries) == 4 and not entries[-1]["retired"]


def text() -> str:
    found = _dump_fr_trace_json(True, False)
    return found if isinstance(found, str) else found.decode()


def dump(rank: int, world: int) -> None:
    while not is_there(rank):
        time.sleep(0.05)
    time.sleep(0.3)  # into the call itself
    (DIRECTORY / f"nccl_trace_rank_{rank}").write_bytes(_dump_fr_trace())
    with open(DIRECTORY / f"stacks_{rank}.txt", "w") as file:
        faulthandler.dump_traceback(file, all_threads=True)
    (DIRECTORY / f"rank_{rank}.json").write_text(text())
    while len(list(DIRECTORY.glob("rank_*.json"))) < world:
        time.sleep(0.05)
    os._exit(0)


def main() -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    threading.Thread(target=dump, args=(rank, world), daemon=True).start()
    for _ in range(3):
        dist.all_reduce(torch.ones(4, 4))
    try:
        if rank == 1:
            load()
        dist.all_reduce(torch.ones(4, 4))  # HERE all_reduce
    except RuntimeError:  # a rank has dumped and ended before this one
        time.sleep(3600)


main()
