"""DistributedDataParallel: one process per device, gradients averaged in every step.

    distrun launch recipes/ddp.py
    distrun launch --nodes 2 recipes/ddp.py --epochs 10 --lr 0.1
    torchrun --nproc-per-node 2 recipes/ddp.py
    python recipes/ddp.py

Rank: the number of a process, 0 to world size - 1. Local rank: its number on its node.
Each rank takes its own slice of the batch; backward() averages the gradients over the ranks
(all-reduce), so all of them take the same step and stay equal without a copy of the
parameters. dp.py is the same file with one process.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "numpy"]
#
# [tool.distrun]
# strategy = "ddp"
# ///

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn  # see main(): has to come before init_process_group
from digits import TRAIN_SIZE, Digits, load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

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
    if remainder := config.batch_size % env.world_size:  # equal slices make equal weights
        below = config.batch_size - remainder
        fits = [str(n) for n in (below, below + env.world_size) if 1 <= n <= TRAIN_SIZE]
        parser.error(
            f"--batch-size {config.batch_size} does not divide among {env.world_size} ranks;"
            f" the nearest that does: {' or '.join(fits)}"
        )
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


def train(config: Config, env: TorchrunEnv, device: torch.device) -> None:
    """Train and evaluate, on each rank; rank 0 tells."""
    data = Digits(*(tensor.to(device) for tensor in load_digits()))  # 0.5 MB: all of it fits
    # Starts from rank 0's parameters; averages 19 kB of gradients in each backward().
    model = DistributedDataParallel(build_model(config).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum)

    step = 0
    steps = config.epochs * (TRAIN_SIZE // config.batch_size)  # 20 x 6 = 120
    for epoch in range(1, config.epochs + 1):
        began = time.perf_counter()
        loss_sum = torch.zeros((), device=device)  # stays there: .item() each step would wait
        batches = epoch_batches(config, epoch).to(device)
        for rows in batches[:, env.rank :: env.world_size]:  # [240 / world size]
            loss = cross_entropy(model(data.train_images[rows]), data.train_labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_sum += loss.detach()
            step += 1
        dist.all_reduce(loss_sum)  # the slices are equal, so the mean of means is the mean
        mean_loss = loss_sum.item() / len(batches) / env.world_size
        rate = batches.numel() / (time.perf_counter() - began)
        if env.rank == 0:
            metrics.log(step, total_steps=steps, loss=mean_loss, lr=config.lr, samples_per_s=rate)
            # Seven decimals: dp.py and ddp.py on any number of ranks agree to 1e-5 of the loss.
            print(f"epoch {epoch}/{config.epochs}  loss {mean_loss:.7f}  {rate:.0f} samples/s")

    # Each rank its slice, no image twice; the slices may differ by one, so counts are summed.
    mine = slice(env.rank, None, env.world_size)
    correct = torch.tensor(
        count_correct(model, data.test_images[mine], data.test_labels[mine]), device=device
    )
    dist.all_reduce(correct)
    total = len(data.test_labels)
    if env.rank == 0:
        print(f"test accuracy {100 * correct / total:.1f} % ({correct} of {total})")


def main() -> None:
    """Choose the device and train."""
    env = TorchrunEnv.read()
    config = parse_config(env)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    use_gpu = gpus >= env.local_world_size  # two ranks cannot share a GPU in NCCL
    device = torch.device("cuda", env.local_rank) if use_gpu else torch.device("cpu")
    backend = "nccl" if use_gpu else "gloo"
    if env.rank == 0:
        print(
            f"world size {env.world_size}: {backend} on {device.type}"
            f" (GPUs here: {gpus} for {env.local_world_size} local ranks),"
            f" {config.batch_size // env.world_size} of {config.batch_size} images a step on each"
        )
    if use_gpu:
        torch.cuda.set_device(device)
    # A world of one needs no address, so plain `python ddp.py` works too.
    store = dist.HashStore() if env.world_size == 1 else None  # type: ignore[attr-defined]
    dist.init_process_group(backend, rank=env.rank, world_size=env.world_size, store=store)
    train(config, env, device)
    # Ends gloo's threads, which can otherwise abort the exit (SIGABRT), but only if nothing
    # else holds the group. DDP() imports torch.distributed.nn, whose default arguments keep
    # the group that exists by then: imported at the top, they keep None. Not in a `finally`:
    # after an error NCCL would wait here for its peers, and hide the error meanwhile.
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
