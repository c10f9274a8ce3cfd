"""A plain DDP job whose faults are keyed by rank and step: `worker.py FAULT --rank 3 --step 10`.

It trains until a file `end` is there, and knows nothing of who launched it. At its step each rank
makes the file `ready<rank>`. A rank that has a fault writes the time of it into the file `fault`,
and then calls the function of faulty.py that has its name. `none` is no fault.
"""

import argparse
import os
import time
from contextlib import suppress
from pathlib import Path

import faulty
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

RANK = int(os.environ["RANK"])
STEP_S = 0.01
"""A pause in each step: four ranks that spin would take all of two cores."""


def meet(fault, at):
    """Have the fault, if this is its place: a step, `start` (before all else) or `end`."""
    if RANK not in fault.ranks or fault.at != at:
        return
    with suppress(FileExistsError), open("fault", "x") as file:  # the first of several counts
        file.write(repr(time.time()))
    getattr(faulty, fault.name)()


def train(fault):
    torch.manual_seed(RANK)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    if not fault.is_alone:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    step = 0
    while not is_over(fault):
        optimizer.zero_grad()
        loss = model(torch.randn(8, 16)).square().mean()
        if step == int(fault.step):
            Path(f"ready{RANK}").touch()
        meet(fault, step)
        loss.backward()
        optimizer.step()
        time.sleep(STEP_S)
        step += 1
    print(f"rank {RANK} trained {step} steps, loss {loss.item():.4f}", flush=True)


def is_over(fault):
    """Whether to end; all ranks that train together learn it at the same step."""
    ends = torch.tensor(float(Path("end").exists()))
    if not fault.is_alone:
        dist.all_reduce(ends, dist.ReduceOp.MAX)
    return bool(ends)


class Fault:
    """What the command line asks for."""

    def __init__(self):
        parser = argparse.ArgumentParser()
        parser.add_argument("name")
        parser.add_argument("--rank", default="3")
        parser.add_argument("--step", type=int, default=10)
        parser.add_argument("--at", default="step", choices=["start", "step", "end"])
        parser.add_argument("--alone", action="store_true", help="train without any collective")
        parser.add_argument("--deaf", type=int, default=-1, help="a rank that ignores SIGTERM")
        args = parser.parse_args()
        self.name, self.step, self.is_alone = args.name, args.step, args.alone
        self.ranks = range(4) if args.rank == "all" else [*map(int, args.rank.split(","))]
        self.at = args.step if args.at == "step" else args.at
        self.is_deaf = args.deaf == RANK
        if self.name == "none":
            self.ranks = []


def main():
    fault = Fault()
    if fault.is_deaf:
        faulty.ignore_signals()
    meet(fault, "start")
    dist.init_process_group("gloo")
    train(fault)
    meet(fault, "end")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
