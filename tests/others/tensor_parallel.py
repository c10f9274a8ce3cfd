"""Tensor parallel: a feed-forward network, colwise and rowwise, on a mesh of all ranks."""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(16, 64)
        self.down = nn.Linear(64, 8)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


mesh = init_device_mesh("cpu", (int(os.environ["WORLD_SIZE"]),))
torch.manual_seed(5)
model = parallelize_module(
    FeedForward(), mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()}
)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, foreach=True)
for step in range(4):
    torch.manual_seed(step)  # every rank sees the same batch
    loss = model(torch.rand(12, 16)).square().sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"rank {mesh.get_rank()} step {step} loss {loss.item():.5f}")
shard = model.up.weight.to_local()
torch.save(shard.detach().clone(), f"{sys.argv[1]}/up-{mesh.get_rank()}.pt")
dist.destroy_process_group()
