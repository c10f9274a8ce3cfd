"""DDP in which one rank stays in its data pipeline; the others wait for it in backward."""

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

AWAITED, GO_ON = int(sys.argv[1]), Path("go_on")


def load(step: int) -> torch.Tensor:
    if step == 3 and dist.get_rank() == AWAITED:
        while not GO_ON.exists():
            time.sleep(0.2)
    return torch.ones(2, 4)


def main() -> None:
    dist.init_process_group("gloo")
    model = DistributedDataParallel(torch.nn.Linear(4, 4))
    for step in range(6):
        batch = load(step)
        Path(f"step{step}_{os.environ['RANK']}").touch()
        model(batch).sum().backward()
    dist.destroy_process_group()


main()
