"""The training run of benchmarks/soak.py: a restart, or another number of ranks, changes no loss.

    soak_train.py DIR [--until STEP] [--step-s 0.05]

It trains in float64 with DDP. The global batch of a step depends on nothing but the step, and the
ranks share it equally. Rank 0 saves every few steps; a new start goes on from there. A rank that is
named in the file `DIR/order` does what that says: a function of tests/faults/faulty.py.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from distrun.train import metrics

FAULTS = Path(__file__).parents[1] / "tests" / "faults"
BATCH = 24
SAVE_EVERY = 20


def batch_of(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs [BATCH, 16] and targets [BATCH, 4] of one step, for all ranks."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(BATCH, 16, dtype=torch.float64, generator=generator)
    return x, torch.stack([x[:, i] * x[:, i + 4] for i in range(4)], dim=1)


def obey(home: Path) -> None:
    """Have the fault that is ordered, if it is for this rank."""
    try:
        rank, fault = (home / "order").read_text().split()
    except (OSError, ValueError):
        return
    if int(rank) == dist.get_rank():
        (home / "order").unlink()
        sys.path.insert(0, str(FAULTS))
        getattr(importlib.import_module("faulty"), fault)()


def is_over(home: Path, step: int, until: int) -> bool:
    """Whether to end; all ranks learn it at the same step."""
    ends = torch.tensor(float((home / "end").exists() or step == until))
    dist.all_reduce(ends, dist.ReduceOp.MAX)
    return bool(ends)


def save(home: Path, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Save what the next start needs, as a whole or not at all."""
    draft = home / "checkpoint.draft"
    torch.save((step, model.state_dict(), optimizer.state_dict()), draft)
    draft.replace(home / "checkpoint")
    (home / "saved").write_text(str(step))


def final_loss(model: torch.nn.Module) -> float:
    x, y = batch_of(1 << 40)
    with torch.no_grad():
        return float(torch.nn.functional.mse_loss(model(x), y))


def train(home: Path, until: int, step_s: float) -> None:
    rank, world_size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    layers = (torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, 4))
    model = torch.nn.Sequential(*layers).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    step = 0
    if (home / "checkpoint").exists():
        step, weights, state = torch.load(home / "checkpoint")
        model.load_state_dict(weights)
        optimizer.load_state_dict(state)
    shared = DistributedDataParallel(model)
    while True:
        if step % SAVE_EVERY == 0:
            if rank == 0:
                save(home, step, model, optimizer)
            if is_over(home, step, until):
                break
        x, y = (part[rank::world_size] for part in batch_of(step))
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(shared(x), y)
        obey(home)
        loss.backward()
        optimizer.step()
        step += 1
        metrics.log(step, loss=loss.item())
        time.sleep(step_s)
    if rank == 0:
        (home / "final.json").write_text(json.dumps({"step": step, "loss": final_loss(model)}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("--until", type=int, default=-1)
    parser.add_argument("--step-s", type=float, default=0.05)
    args = parser.parse_args()
    dist.init_process_group("gloo")
    train(args.home, args.until, args.step_s)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
