"""What scripts for GPUs ask of them: events, the number of a GPU, its name, FSDP without a mesh."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

dist.init_process_group("nccl")
rank = dist.get_rank() % torch.cuda.device_count()
torch.cuda.set_device(rank)
assert torch.cuda.is_bf16_supported() and torch.cuda.get_device_properties(rank).total_memory
layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)]
model = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(*layers)).to(rank)
fully_shard(model)
optimizer = torch.optim.AdamW(model.parameters())
scaler = torch.amp.GradScaler("cuda")
begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
for _ in range(3):
    begin.record()
    x, y = torch.rand(4, 3, 8, 8).to(rank), torch.zeros(4, dtype=torch.long, device=rank)
    loss = nn.functional.cross_entropy(model(x), y)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    end.record()
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    print(f"{torch.cuda.get_device_name(0)}: {begin.elapsed_time(end):.1f} ms, {free / total:.0%}")
    torch.cuda.memory_stats()["num_alloc_retries"]
