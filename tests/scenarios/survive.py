"""A plain training loop that takes part in preemption: survive.py STEPS [FAULT AT_STEP RANK].

Each rank writes the step after which it left into left-RANK.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from distrun.train import metrics, milestones, preempt

STEP_S = 0.05


def fault(kind: str) -> None:
    """Break this rank."""
    if kind == "memory":
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 20)) * 8)
    if kind == "disk":
        raise OSError(28, "No space left on device", "checkpoint.pt")
    raise ValueError(kind)


def main() -> None:
    steps, kind, at, broken = int(sys.argv[1]), *(sys.argv[2:] or ["", "0", "0"])
    begin = int(os.environ.get("BEGIN", "0"))
    dist.init_process_group("gloo")
    rank, attempt = dist.get_rank(), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if rank == 0:
        milestones.begun(begin)
    for step in range(begin, steps):
        if kind and step == int(at) and rank == int(broken) and (kind != "once" or attempt == 0):
            fault(kind)
        dist.all_reduce(torch.ones(4))
        time.sleep(STEP_S)
        if rank == 0:
            metrics.log(step + 1, total_steps=steps, loss=1.0)
        if preempt.wanted(step + 1):
            Path(f"left-{rank}").write_text(str(step + 1))
            break
        if preempt.save_wanted() and rank == 0:
            milestones.saved(step + 1, 0.1)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
