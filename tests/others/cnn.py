"""A small convolutional network on random images, with evaluation and a schedule."""

import argparse

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn, optim
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3)
        self.conv2 = nn.Conv2d(8, 16, 3)
        self.norm = nn.BatchNorm2d(16)
        self.dropout = nn.Dropout(0.1)
        self.fc = nn.Linear(16 * 25, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv2(F.relu(self.conv1(x))))), 2)
        return F.log_softmax(self.fc(self.dropout(torch.flatten(x, 1))), dim=1)


def train(model, loader, optimizer, epoch):
    model.train()
    for number, (data, target) in enumerate(loader):
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        print(f"rank {dist.get_rank()} epoch {epoch} [{number}] loss {loss.item():.6f}")


@torch.no_grad()
def test(model, images, labels):
    model.eval()
    sums = torch.stack([F.nll_loss(model(images), labels), torch.tensor(1.0)])
    dist.all_reduce(sums)
    print(f"test loss {(sums[0] / sums[1]).item():.6f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--save-model", default="")
    args = parser.parse_args()
    dist.init_process_group(backend="gloo")
    torch.manual_seed(1)
    images, labels = torch.rand(64, 1, 14, 14), torch.randint(10, (64,))
    dataset = TensorDataset(images, labels)
    sampler = DistributedSampler(dataset)
    loader = DataLoader(dataset, batch_size=16, sampler=sampler)
    model = DDP(Net())
    optimizer = optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        train(model, loader, optimizer, epoch)
        test(model, images, labels)
        scheduler.step()
    if args.save_model and dist.get_rank() == 0:
        torch.save(model.module.state_dict(), f"{args.save_model}/cnn.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
