"""The shortest DistributedDataParallel: what one types to see whether a machine works."""

import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP


def main():
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    m = DDP(torch.nn.Linear(64, 64))
    o = torch.optim.SGD(m.parameters(), 0.1)
    for _ in range(3):
        o.zero_grad()
        loss = m(torch.randn(8, 64)).pow(2).mean()
        loss.backward()
        o.step()
        print("loss", loss.item())
    torch.save(m.state_dict(), f"{sys.argv[1]}/rank{dist.get_rank()}.pt")
    dist.destroy_process_group()


main()
