"""Accelerate's loop: prepare, accumulate, gather, save_state."""

import sys

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, TensorDataset


def main(directory):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, project_dir=directory)
    set_seed(21)
    dataset = TensorDataset(torch.randn(64, 8), torch.randn(64, 1))
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loader = DataLoader(dataset, batch_size=8, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for x, y in loader:
        with accelerator.accumulate(model):
            loss = torch.nn.functional.mse_loss(model(x), y)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        mean = accelerator.gather(loss.detach()).mean()
        print(f"rank {accelerator.process_index} loss {loss.item():.7f} mean {mean.item():.7f}")
    accelerator.wait_for_everyone()
    accelerator.save_state(f"{directory}/state")
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1])
