"""DistributedDataParallel: one process per device, gradients averaged in every step.

    distrun launch recipes/ddp.py
    distrun launch --nodes 2 recipes/ddp.py --steps 60 --lr 0.1
    torchrun --nproc-per-node 2 recipes/ddp.py
    python recipes/ddp.py

Rank: the number of a process, 0 to world size - 1. Local rank: its number on its node.
Each rank takes its own slice of the batch; backward() averages the gradients over the ranks
(all-reduce), so all of them take the same step and stay equal without a copy of the
parameters. dp.py is the same file with one process. Read single.py next: a GPT.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "numpy", "distrun"]
#
# [tool.distrun]
# strategy = "ddp"
#
# [tool.distrun.verify]
# reference = "dp"
#
# [tool.distrun.verify.layouts]
# "ddp 2" = { ranks = 2 }
# "ddp 4" = { ranks = 4 }
# ///

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from data import TRAIN_SIZE, Digits, load_digits
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer

from distrun.train import mesh as meshes
from distrun.train import optim
from distrun.train.checkpoint import Checkpoints
from distrun.train.config import Schedule, TrainConfig, option, parse
from distrun.train.precision import GradScaler, autocast, master_dtype
from distrun.train.progress import Progress
from distrun.train.setup import START_TIMEOUT_S, Place, shorten_timeout, start


@dataclass(frozen=True)
class Config(TrainConfig):
    """The settings; each is a flag."""

    steps: int = option(120, "6 are an epoch; the accuracy is flat after 90", 1, 10_000_000)
    batch_size: int = option(240, "of all devices; divides among 1-6, 8, 10, 12", 1, TRAIN_SIZE)
    lr: float = option(0.2, "0.1 suits a batch of 120; twice the batch, twice the rate", 0, 100)
    warmup_steps: int = option(0, "in which the rate rises from 0", 0)
    schedule: Schedule = option("constant", "how the rate falls after it")
    clip: float = option(0.0, "largest norm of all gradients together; 0: no clipping", 0)
    momentum: float = option(0.9, "without it the same takes five times as long", 0, 0.999)
    hidden: int = option(64, "units; 128, or a second layer, gain nothing here", 1, 65_536)


def axes(config: Config, world_size: int) -> dict[str, int]:
    """Return the mesh: one axis, of the ranks that see different images."""
    meshes.require_divides("--batch-size", config.batch_size, world_size, "ranks", most=TRAIN_SIZE)
    return meshes.sizes(world_size, data=-1)


def build_model(config: Config) -> nn.Sequential:
    """Build the network, equal for equal seeds: [B, 8, 8] pixels to [B, 10] logits."""
    torch.manual_seed(config.seed)
    model = nn.Sequential(
        nn.Flatten(),  # [B, 8, 8] -> [B, 64]
        nn.Linear(64, config.hidden),  # 64 x 64 + 64 = 4160 parameters
        nn.ReLU(),
        nn.Linear(config.hidden, 10),  # 64 x 10 + 10 = 650: 4810 in all, 19 kB
    )
    return model.to(master_dtype(config.precision))


def example(config: Config) -> Tensor:
    """Return an input of the model, with which `distrun recipes export` traces it."""
    return torch.rand(2, 8, 8)


def parallelize(model: nn.Module, mesh: DeviceMesh, config: Config) -> DistributedDataParallel:
    """Return what starts from rank 0's parameters, and averages 19 kB in each backward()."""
    return DistributedDataParallel(model, process_group=mesh.get_group("data"))


def build_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """Return SGD with momentum over what this rank holds; to be called after `parallelize`."""
    return SGD(model.parameters(), lr=config.lr, momentum=config.momentum)


def batch(step: int, config: Config, data: Digits, mine: slice) -> tuple[Tensor, Tensor]:
    """Return this rank's slice of the images [B, 8, 8] and labels [B] of a step.

    A pure function of (seed, step): 1440 // 240 = 6 steps are an epoch, which has an order of
    its own. The rows after the last full batch sit out this epoch.
    """
    epoch, place = divmod(step, TRAIN_SIZE // config.batch_size)
    order = np.random.default_rng((config.seed, epoch)).permutation(TRAIN_SIZE)
    rows = torch.from_numpy(order[place * config.batch_size :][: config.batch_size])[mine]
    return data.train_images[rows], data.train_labels[rows]


def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over the images of -log p(label): a scalar with a graph."""
    return cross_entropy(model(images), labels)


@torch.no_grad()
def count_correct(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Count the images [N, 8, 8] whose largest logit is at their label [N]."""
    return int((model(images).argmax(dim=1) == labels).sum())


def train(config: Config, place: Place) -> None:
    """Train, evaluate and save, on each rank."""
    device = place.device
    mesh = place.mesh(axes(config, place.world_size))
    data = load_digits(master_dtype(config.precision)).to(device)  # 0.5 MB: all of it fits
    mine = slice(place.rank, None, place.world_size)  # equal slices make equal weights

    model = parallelize(build_model(config).to(device), mesh, config)
    optimizer = build_optimizer(model, config)
    scaler = GradScaler(config.precision, device)
    flops = 6 * sum(p.numel() for p in model.parameters())  # a sample: 2 forward, 4 backward

    with (
        Checkpoints(config, place, [model], optimizer, scaler) as checkpoints,
        Progress(config, place, flops, unit="samples") as progress,
    ):
        begin = checkpoints.resume()
        for step in range(begin, config.steps):
            images, labels = batch(step, config, data, mine)
            rate = optim.learning_rate(step, config)
            optim.set_learning_rate(optimizer, rate)
            with autocast(config.precision, device):
                step_loss = loss(model, images, labels)
            scaler.scale(step_loss).backward()
            step_loss = step_loss.detach()
            mean_loss = progress.agree(step, step_loss, len(labels), good=checkpoints.last_good)
            scaler.unscale_(optimizer)
            norm = optim.clip_grad_norm(model.parameters(), config.clip)
            progress.require_finite(step, norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            progress.log(step, loss=mean_loss, lr=rate, grad_norm=norm)
            checkpoints.after(step + 1, stop=progress.stop)
            if step == begin:  # all ranks are there: from now on a late one is a lost one
                shorten_timeout()
            progress.leave_if_told()
    # Each rank its slice, no image twice; the slices may differ by one, so counts are summed.
    count = count_correct(model.module, data.test_images[mine], data.test_labels[mine])
    correct, total = torch.tensor(count, device=device), len(data.test_labels)
    dist.all_reduce(correct)
    place.say(f"test accuracy {100 * correct / total:.1f} % ({correct} of {total})")


def join() -> None:
    """Make the process group of all ranks: what the other recipes' `start` does by itself.

    The launcher, torchrun or distrun, gives each process RANK, WORLD_SIZE, LOCAL_RANK, and in
    MASTER_ADDR and MASTER_PORT where the ranks meet.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    backend = "gloo"
    if torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", 1)):
        torch.cuda.set_device(local_rank)  # else every rank of a node would take GPU 0
        backend = "cpu:gloo,cuda:nccl"
    alone: dict[str, Any] = {}
    if "RANK" not in os.environ:  # plain python: a world of one, which meets nobody
        store = dist.HashStore()  # type: ignore[attr-defined] # torch's list of names lacks it
        alone = {"store": store, "rank": 0, "world_size": 1}
    dist.init_process_group(backend, timeout=timedelta(seconds=START_TIMEOUT_S), **alone)


def main() -> None:
    """Read the flags, join the other ranks, train."""
    config = parse(Config, axes)
    join()
    try:
        with start(config, joined=True) as place:
            train(config, place)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
