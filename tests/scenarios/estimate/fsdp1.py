"""The first generation of FSDP, as its tutorials write it: `fsdp1.py hybrid|offload|original`."""

import functools
import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import (
    CPUOffload,
    FullyShardedDataParallel,
    MixedPrecision,
    ShardingStrategy,
)
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

kind = sys.argv[1]
dist.init_process_group("nccl")
local_rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(local_rank)
model = nn.Sequential(
    nn.Linear(64, 64), *(nn.TransformerEncoderLayer(64, 4, 256, batch_first=True) for _ in range(2))
)
strategy = ShardingStrategy.HYBRID_SHARD if kind == "hybrid" else ShardingStrategy.FULL_SHARD
layers = {nn.TransformerEncoderLayer}
model = FullyShardedDataParallel(
    model,
    auto_wrap_policy=functools.partial(transformer_auto_wrap_policy, transformer_layer_cls=layers),
    sharding_strategy=strategy,
    cpu_offload=CPUOffload(offload_params=kind == "offload"),
    mixed_precision=MixedPrecision(param_dtype=torch.bfloat16, reduce_dtype=torch.float32),
    device_id=torch.cuda.current_device(),
    sync_module_states=True,
    use_orig_params=kind == "original",
)
optimizer = torch.optim.AdamW(model.parameters())
for step in range(3):
    x = torch.rand(4, 16, 64, pin_memory=True).to(local_rank, non_blocking=True)
    loss = model(x).square().mean()
    loss.backward()
    model.clip_grad_norm_(1.0)
    optimizer.step()
    optimizer.zero_grad()
    print(step, loss.item())
