"""DistributedDataParallel with setup() and cleanup(), as most introductions write it."""

import os
import sys

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.optim as optim
from torch.nn.parallel import DistributedDataParallel as DDP


class ToyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.net1 = nn.Linear(10, 10)
        self.relu = nn.ReLU()
        self.net2 = nn.Linear(10, 5)

    def forward(self, x):
        return self.net2(self.relu(self.net1(x)))


def setup():
    dist.init_process_group("gloo")
    torch.manual_seed(17)


def cleanup():
    dist.destroy_process_group()


def demo_basic(directory):
    setup()
    rank = dist.get_rank()
    print(f"start basic DDP example on rank {rank}, local rank {os.environ['LOCAL_RANK']}")
    ddp_model = DDP(ToyModel())
    loss_fn = nn.MSELoss()
    optimizer = optim.SGD(ddp_model.parameters(), lr=0.01)
    torch.manual_seed(rank)
    for step in range(5):
        optimizer.zero_grad()
        loss = loss_fn(ddp_model(torch.randn(20, 10)), torch.randn(20, 5))
        loss.backward()
        optimizer.step()
        print(f"rank {rank} step {step} loss {loss.item():.7f}")
    if rank == 0:
        torch.save(ddp_model.module.state_dict(), f"{directory}/model.pt")
    cleanup()
    print(f"rank {rank} has finished")


if __name__ == "__main__":
    demo_basic(sys.argv[1])
