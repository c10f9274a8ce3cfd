"""A GPT on one device: the loop that every recipe after it shares, and what they must equal.

    distrun launch recipes/single.py
    distrun launch recipes/single.py --size small --precision bfloat16 --steps 500 --sample 200
    python recipes/single.py

One process, one copy of everything. With P parameters in float32, training keeps 4 P bytes of
weights, 4 P of gradients and 8 P of AdamW's two averages: 16 P in all. The 0.25 M of --size
tiny take 4 MB; the 8.84 B of --size 8B take 141 GB before the first activation, which is why the
other recipes exist. Read ddp_gpt.py next.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "numpy", "distrun"]
#
# [tool.distrun]
# nproc-per-node = 1
#
# [tool.distrun.constraints]
# world-size = {max = 1}
# ///

from __future__ import annotations

from dataclasses import dataclass

import torch
from data import Shard, Windows, as_text, batches, open_text, require_text
from model import GPT, decay_groups, model_config, prepare_blocks, sample
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer

from distrun.train import mesh as meshes
from distrun.train import optim
from distrun.train.checkpoint import Checkpoints
from distrun.train.config import TextConfig, parse
from distrun.train.precision import GradScaler, autocast, master_dtype
from distrun.train.progress import Progress
from distrun.train.setup import Place, shorten_timeout, start


@dataclass(frozen=True)
class Config(TextConfig):
    """The settings; each is a flag."""


def axes(config: Config, world_size: int) -> dict[str, int]:
    """Return the mesh: one axis, of the ranks that see different data."""
    meshes.require_divides("--batch-size", config.batch_size, config.accumulate, "micro-batches")
    return meshes.sizes(world_size, data=1)


def build_model(config: Config) -> GPT:
    """Build the whole model, equal for equal seeds."""
    model = GPT(model_config(config.size, tied=config.tied)).init_weights(config.seed)
    return model.to(master_dtype(config.precision))


def parallelize(model: GPT, mesh: DeviceMesh, config: Config) -> nn.Module:
    """Return the model as it trains on this rank: here as it is."""
    prepare_blocks(model.blocks.values(), config.recompute, config.compile)
    return model


def build_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """Return AdamW over what this rank holds; to be called after `parallelize`."""
    groups = decay_groups(model, config.weight_decay)
    return AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True)


def batch(step: int, windows: Windows) -> tuple[Tensor, Tensor]:
    """Return this rank's tokens and targets of a step: two of [accumulate, rows, T]."""
    tokens = windows[step]
    return tokens[..., :-1], tokens[..., 1:]


def loss(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over the tokens of -log p(next byte), in nats: a scalar with a graph."""
    logits = model(tokens)  # [rows, T, V]
    return cross_entropy(logits.flatten(0, 1), targets.flatten())


@torch.no_grad()
def evaluate(model: nn.Module, windows: Windows, config: Config, device: torch.device) -> Tensor:
    """Return the mean loss over this rank's part of the first validation batches."""
    model.eval()
    total = torch.zeros((), device=device, dtype=torch.float64)
    passes = config.eval_batches * config.accumulate  # no more at once than in training
    for step in range(config.eval_batches):
        for tokens, targets in zip(*batch(step, windows), strict=True):
            with autocast(config.precision, device):
                total += loss(model, tokens.to(device), targets.to(device)) / passes
    model.train()
    return total


def train(config: Config, place: Place) -> None:
    """Train, evaluate and save, on each rank."""
    device = place.device
    mesh = place.mesh(axes(config, place.world_size))
    shard = Shard(mesh["data"].get_local_rank(), mesh["data"].size())
    training, validation = open_text(config, shard)

    model = parallelize(build_model(config).to(device), mesh, config)
    optimizer = build_optimizer(model, config)
    scaler = GradScaler(config.precision, device)
    flops = model_config(config.size, tied=config.tied).flops_per_token(config.seq_len)

    with (
        Checkpoints(config, place, [model], optimizer, scaler) as checkpoints,
        Progress(config, place, flops) as progress,
    ):
        begin = checkpoints.resume()
        for step, tokens, targets in batches(batch, training, begin, device):
            rate = optim.learning_rate(step, config)
            optim.set_learning_rate(optimizer, rate)
            step_loss = torch.zeros((), device=device, dtype=torch.float64)
            for micro in range(config.accumulate):
                with autocast(config.precision, device):  # entered anew: it caches casts
                    micro_loss = loss(model, tokens[micro], targets[micro]) / config.accumulate
                scaler.scale(micro_loss).backward()
                step_loss += micro_loss.detach()
            mean_loss = progress.agree(step, step_loss, targets.numel(), good=checkpoints.last_good)
            scaler.unscale_(optimizer)
            norm = optim.clip_grad_norm(model.parameters(), config.clip)
            progress.require_finite(step, norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            progress.log(step, loss=mean_loss, lr=rate, grad_norm=norm)
            if progress.evaluates(step + 1):
                progress.evaluated(step + 1, evaluate(model, validation, config, device))
            checkpoints.after(step + 1, stop=progress.stop)
            if step == begin:  # all ranks are there: from now on a late one is a lost one
                shorten_timeout()
            progress.leave_if_told()
    if config.sample:
        first = training[0][0, 0, :1].to(device)
        text = sample(model, first, config.sample, config.seq_len, 0)
        place.say(as_text(text))


def main() -> None:
    """Read the flags, join the other ranks, train."""
    config = parse(Config, axes, require_text)
    with start(config) as place:  # init_process_group, set_device(LOCAL_RANK): train/setup.py
        train(config, place)


if __name__ == "__main__":
    main()
