"""nn.DataParallel: one process drives every GPU it sees; on a CPU it is plain training.

    distrun launch recipes/dp.py
    distrun launch recipes/dp.py --epochs 10 --lr 0.1
    python recipes/dp.py

In each step GPU 0 sends the parameters and a piece of the batch to all others, takes back
their outputs, and alone computes the loss: one Python thread per GPU, one busy GPU 0. Read
ddp.py next: the same file with one process per device, which is what scales.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "numpy"]
#
# [tool.distrun]
# strategy = "dp"
# nproc-per-node = 1
#
# [tool.distrun.constraints]
# world-size = {max = 1}
# ///

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, fields

import numpy as np
import torch
from digits import TRAIN_SIZE, Digits, load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distrun.env import TorchrunEnv
from distrun.train import metrics


@dataclass(frozen=True)
class Config:
    """The settings; each is a flag: `batch_size` is `--batch-size`."""

    epochs: int = 20  # the test accuracy is flat after about 15
    batch_size: int = 240  # global: all devices together; divides among 1-6, 8, 10, 12, 16 ranks
    lr: float = 0.2  # 0.1 suits a batch of 120; twice the batch, twice the rate
    momentum: float = 0.9  # without it the same accuracy takes 100 epochs and more
    hidden: int = 64  # 128 units or a second layer gain nothing on images this small
    seed: int = 0  # of the parameters and of the order of the images

    def __post_init__(self) -> None:
        """Refuse a value that cannot train."""
        for flag, value, low, high in (
            ("--epochs", self.epochs, 1, 100_000),
            ("--batch-size", self.batch_size, 1, TRAIN_SIZE),
            ("--lr", self.lr, 1e-6, 100),
            ("--momentum", self.momentum, 0, 0.999),
            ("--hidden", self.hidden, 1, 65_536),
            ("--seed", self.seed, 0, 2**63 - 1),
        ):
            if not low <= value <= high:  # written so that NaN fails too
                raise ValueError(f"{flag} must be from {low} to {high}, not {value}")


def parse_config(env: TorchrunEnv) -> Config:
    """Read the command line; what cannot work ends here, with exit code 2."""
    parser = argparse.ArgumentParser(usage="%(prog)s [--FLAG VALUE ...]")
    for field in fields(Config):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(
            flag, type=type(field.default), default=field.default, help="%(default)s"
        )
    try:
        config = Config(**vars(parser.parse_args()))
    except ValueError as error:
        parser.error(str(error))
    if env.world_size > 1:
        parser.error(f"DataParallel is one process, not {env.world_size}: use ddp.py for more")
    return config


def build_model(config: Config) -> nn.Sequential:
    """Build the network, equal for equal seeds: [B, 8, 8] pixels to [B, 10] logits."""
    torch.manual_seed(config.seed)
    return nn.Sequential(
        nn.Flatten(),  # [B, 8, 8] -> [B, 64]
        nn.Linear(64, config.hidden),  # 64 x 64 + 64 = 4160 parameters
        nn.ReLU(),
        nn.Linear(config.hidden, 10),  # 64 x 10 + 10 = 650: 4810 in all, 19 kB
    )


def epoch_batches(config: Config, epoch: int) -> Tensor:
    """Return the train rows of each step of an epoch: [steps, batch_size] int64.

    A pure function of (seed, epoch). The rows after the last full batch sit out this epoch;
    the next one shuffles anew.
    """
    order = np.random.default_rng((config.seed, epoch)).permutation(TRAIN_SIZE)
    steps = TRAIN_SIZE // config.batch_size  # 1440 // 240 = 6
    return torch.from_numpy(order[: steps * config.batch_size].reshape(steps, -1))


@torch.inference_mode()
def count_correct(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Count the images [N, 8, 8] whose largest logit is at their label [N]."""
    return int((model(images).argmax(dim=1) == labels).sum())


def train(config: Config, device: torch.device) -> None:
    """Train and evaluate."""
    data = Digits(*(tensor.to(device) for tensor in load_digits()))  # 0.5 MB: all of it fits
    # Splits dim 0 of its input among the GPUs; without one it just calls the module.
    model = nn.DataParallel(build_model(config).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum)

    step = 0
    steps = config.epochs * (TRAIN_SIZE // config.batch_size)  # 20 x 6 = 120
    for epoch in range(1, config.epochs + 1):
        began = time.perf_counter()
        loss_sum = torch.zeros((), device=device)  # stays there: .item() each step would wait
        batches = epoch_batches(config, epoch).to(device)
        for rows in batches:  # [240]
            loss = cross_entropy(model(data.train_images[rows]), data.train_labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_sum += loss.detach()
            step += 1
        mean_loss = loss_sum.item() / len(batches)
        rate = batches.numel() / (time.perf_counter() - began)
        metrics.log(step, total_steps=steps, loss=mean_loss, lr=config.lr, samples_per_s=rate)
        # Seven decimals: dp.py and ddp.py on any number of ranks agree to 1e-5 of the loss.
        print(f"epoch {epoch}/{config.epochs}  loss {mean_loss:.7f}  {rate:.0f} samples/s")

    correct = count_correct(model, data.test_images, data.test_labels)
    total = len(data.test_labels)
    print(f"test accuracy {100 * correct / total:.1f} % ({correct} of {total})")


def main() -> None:
    """Choose the device and train."""
    env = TorchrunEnv.read()
    config = parse_config(env)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = torch.device("cuda", 0) if gpus else torch.device("cpu")
    if gpus > 1:
        print(f"DataParallel on {gpus} GPUs, {config.batch_size} images of a batch among them")
    else:
        print(f"DataParallel has one device ({device}): nothing runs in parallel")
    train(config, device)


if __name__ == "__main__":
    main()
