"""DataLoaders with worker processes, forked and spawned, behind a DistributedSampler."""

import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, Dataset, DistributedSampler, get_worker_info


class Squares(Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, index):
        assert get_worker_info() is not None
        x = torch.full((4,), index / 32)
        return x, x.square().sum()


def main(directory):
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(2)
    model = DDP(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    for epoch, method in enumerate(("fork", "spawn")):
        sampler = DistributedSampler(Squares(), shuffle=True, seed=4)
        sampler.set_epoch(epoch)
        loader = DataLoader(
            Squares(), 8, sampler=sampler, num_workers=1, multiprocessing_context=method
        )
        for x, y in loader:
            seen += x[:, 0].tolist()
            loss = (model(x).squeeze(1) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(f"rank {rank} {method} loss {loss.item():.7f}")
    torch.save(torch.tensor(seen), f"{directory}/seen{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
