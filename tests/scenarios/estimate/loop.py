"""A plain script for GPUs with DistributedDataParallel: nothing in it knows of distrun."""

from __future__ import annotations

import argparse
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

parser = argparse.ArgumentParser()
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--steps", type=int, default=100)
flags = parser.parse_args()

dist.init_process_group("nccl")
local_rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(local_rank)
device = torch.device("cuda", local_rank)
model = nn.Sequential(nn.Linear(16, flags.width), nn.ReLU(), nn.Linear(flags.width, 10)).to(device)
model = DistributedDataParallel(model, device_ids=[local_rank])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
data = TensorDataset(torch.randn(4096, 16), torch.randint(0, 10, (4096,)))
loader = DataLoader(data, batch_size=32, sampler=DistributedSampler(data), num_workers=2)
seen = 0.0
for step, (x, y) in zip(range(flags.steps), loader):  # noqa: B905 - the shorter ends it
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = cross_entropy(model(x.to(device)), y.to(device))
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if torch.isnan(loss) or not torch.isfinite(norm):
        raise SystemExit("the loss is not a number")
    optimizer.step()
    optimizer.zero_grad()
    seen += loss.item()
    torch.cuda.synchronize()
    print(f"step {step} loss {loss:.3f} mean {seen / (step + 1):.3f}")
dist.destroy_process_group()
