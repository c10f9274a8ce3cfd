"""The smallest distributed program: every rank adds its number."""

import torch
import torch.distributed as dist

dist.init_process_group()
x = torch.tensor(float(dist.get_rank()))
dist.all_reduce(x)
print(f"sum {x.item()}")
dist.destroy_process_group()
