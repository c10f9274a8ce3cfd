"""DDP that saves on rank 0, waits at a barrier, and loads the checkpoint on every rank."""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def train(model, optimizer, steps, name):
    for step in range(steps):
        inputs = torch.randn(16, 12)
        loss = nn.functional.cross_entropy(model(inputs), inputs.argmax(dim=1) % 4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"rank {dist.get_rank()} {name} step {step} loss {loss.item():.7f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    checkpoint_path = parser.parse_args().directory / "checkpoint.pt"
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(1)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 4)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.manual_seed(100 + rank)
    train(model, optimizer, 3, "before")
    if rank == 0:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, checkpoint_path)
    dist.barrier()  # nobody loads what is not written yet

    other = DistributedDataParallel(nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 4)))
    other_optimizer = torch.optim.AdamW(other.parameters(), lr=1e-2)
    checkpoint = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
    other.load_state_dict(checkpoint["model"])
    other_optimizer.load_state_dict(checkpoint["optimizer"])
    train(other, other_optimizer, 3, "after")
    dist.barrier()
    if rank == 0:
        checkpoint_path.rename(checkpoint_path.with_name("last.pt"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
