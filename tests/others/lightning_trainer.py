"""Lightning's Trainer under a launcher: it finds its ranks in torchrun's variables."""

import os
import sys

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset


class Regression(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch, index):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.layer(x), y)
        print(f"rank {self.global_rank} batch {index} loss {loss.item():.7f}")
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def main(directory):
    L.seed_everything(22)
    dataset = TensorDataset(torch.randn(48, 8), torch.randn(48, 1))
    trainer = L.Trainer(
        accelerator="cpu",
        strategy="ddp",
        devices=int(os.environ["LOCAL_WORLD_SIZE"]),
        num_nodes=int(os.environ["GROUP_WORLD_SIZE"]),
        max_epochs=2,
        default_root_dir=directory,
        logger=False,
        enable_progress_bar=False,
        log_every_n_steps=1,
    )
    trainer.fit(Regression(), DataLoader(dataset, batch_size=8, shuffle=True))


if __name__ == "__main__":
    main(sys.argv[1])
