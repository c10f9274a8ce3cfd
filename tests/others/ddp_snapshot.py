"""An elastic trainer: it writes a snapshot after each epoch and goes on from one it finds."""

import argparse
import os
from pathlib import Path

import torch
from torch.distributed import destroy_process_group, init_process_group
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


class Trainer:
    def __init__(self, model, data, optimizer, snapshot_path):
        self.rank = int(os.environ["RANK"])
        self.data = data
        self.snapshot_path = snapshot_path
        self.epochs_run = 0
        self.model = model
        self.optimizer = optimizer
        if snapshot_path.exists():
            self.load_snapshot()
        self.model = DDP(self.model)

    def load_snapshot(self):
        snapshot = torch.load(self.snapshot_path, weights_only=True)
        self.model.load_state_dict(snapshot["MODEL_STATE"])
        self.epochs_run = snapshot["EPOCHS_RUN"]
        print(f"rank {self.rank} resumes at epoch {self.epochs_run}")

    def save_snapshot(self, epoch):
        snapshot = {"MODEL_STATE": self.model.module.state_dict(), "EPOCHS_RUN": epoch + 1}
        torch.save(snapshot, self.snapshot_path)

    def train(self, max_epochs):
        for epoch in range(self.epochs_run, max_epochs):
            self.data.sampler.set_epoch(epoch)
            for number, (x, y) in enumerate(self.data):
                self.optimizer.zero_grad()
                loss = functional.mse_loss(self.model(x), y)
                loss.backward()
                self.optimizer.step()
                print(f"rank {self.rank} epoch {epoch} batch {number} loss {loss.item():.7f}")
            if self.rank == 0:
                self.save_snapshot(epoch)


def main(directory, total_epochs):
    init_process_group("gloo")
    torch.manual_seed(3)
    dataset = TensorDataset(torch.randn(64, 20), torch.randn(64, 1))
    model = torch.nn.Linear(20, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    loader = DataLoader(dataset, batch_size=16, sampler=DistributedSampler(dataset))
    trainer = Trainer(model, loader, optimizer, Path(directory, "snapshot.pt"))
    trainer.train(total_epochs)
    destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="simple distributed training job")
    parser.add_argument("directory")
    parser.add_argument("total_epochs", type=int)
    args = parser.parse_args()
    main(args.directory, args.total_epochs)
