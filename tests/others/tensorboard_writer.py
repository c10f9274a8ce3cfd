"""TensorBoard on rank 0, with a writer that is flushed and that nobody closes."""

import os
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.tensorboard import SummaryWriter

dist.init_process_group("gloo")
rank = int(os.environ["RANK"])
torch.manual_seed(8)
model = DDP(torch.nn.Linear(10, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
writer = SummaryWriter(f"{sys.argv[1]}/tensorboard") if rank == 0 else None
for step in range(8):
    optimizer.zero_grad()
    loss = torch.nn.functional.l1_loss(model(torch.randn(16, 10)), torch.zeros(16, 1))
    loss.backward()
    optimizer.step()
    if writer:
        writer.add_scalar("loss/train", loss.item(), step)
        writer.add_histogram("weights", model.module.weight, step)
    print(f"rank {rank} step {step} loss {loss.item():.7f}")
if writer:
    writer.flush()  # without it the last events depend on a thread that nobody waits for
dist.destroy_process_group()
