"""A bar of tqdm on every rank, and the losses written beside it."""

import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm, trange


def main():
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(6)
    net = DistributedDataParallel(torch.nn.Linear(6, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = open(f"{sys.argv[1]}/losses{rank}.txt", "w")
    for epoch in trange(2, desc=f"rank {rank}", position=2 * rank):
        bar = tqdm(range(4), leave=False, position=2 * rank + 1)
        for step in bar:
            loss = net(torch.randn(8, 6)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.set_postfix(mean=f"{loss.item():.4f}")
            losses.write(f"{epoch} {step} {loss.item():.7f}\n")
        print(f"\nrank {rank} epoch {epoch} loss {loss.item():.7f}")
    dist.destroy_process_group()


main()
