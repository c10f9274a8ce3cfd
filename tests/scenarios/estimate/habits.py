"""What scripts do around their steps: an average of the weights, files, checks of the device."""

import copy
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

assert torch.cuda.is_available()
dist.init_process_group("nccl")
assert dist.get_backend() == "nccl"
device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
torch.set_float32_matmul_precision("high")
model = torch.compile(nn.Linear(64, 64).to(device))
average = copy.deepcopy(model._orig_mod)
model = DistributedDataParallel(model, device_ids=[device.index])
assert next(model.parameters()).is_cuda
optimizer = torch.optim.AdamW(model.parameters())
for _ in range(3):
    torch.cuda.nvtx.range_push("step")
    model(torch.rand(8, 64).pin_memory().to(device, non_blocking=True)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.data.lerp_(value.data, 0.1)
    torch.cuda.nvtx.range_pop()
    file = Path(sys.argv[1]) / "last.pt"
    torch.save({"model": model.state_dict(), "random": torch.cuda.get_rng_state()}, file)
    model.load_state_dict(torch.load(file)["model"])
    dcp.save({"model": model.state_dict()}, checkpoint_id=sys.argv[1])
