"""Gradients of four micro-batches, of which the last alone is reduced; clipped, then a step."""

import contextlib
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP

MICRO_BATCHES = 4


def main():
    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(12)
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 1))
    model = DDP(net, gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.manual_seed(world_size + rank)
    for step in range(3):
        total = torch.zeros(())
        for micro in range(MICRO_BATCHES):
            last = micro == MICRO_BATCHES - 1
            with contextlib.nullcontext() if last else model.no_sync():
                loss = model(torch.randn(4, 8)).square().mean() / MICRO_BATCHES
                loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        dist.all_reduce(total)
        if rank == 0:
            print(f"step {step} loss {total.item() / world_size:.7f} norm {norm.item():.6f}")
    torch.save(optimizer.state_dict(), f"{sys.argv[1]}/optimizer{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
