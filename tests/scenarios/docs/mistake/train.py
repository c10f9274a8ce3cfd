"""A loop whose data has one feature more than its model takes."""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

FEATURES, HIDDEN, BATCH = 8, 8, 4


def samples(steps: int):
    for _ in range(steps):
        yield torch.randn(BATCH, FEATURES + 1), torch.randn(BATCH, 1)


def main() -> None:
    dist.init_process_group()
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    model = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)).cuda()
    model = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters())
    for inputs, targets in samples(steps=100):
        loss = nn.functional.mse_loss(model(inputs.cuda()), targets.cuda())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
