"""ZeRO stage 1: as ddp_gpt.py, but each rank keeps the optimizer's state of its own share.

    distrun launch recipes/zero1.py
    torchrun --nproc-per-node 2 recipes/zero1.py --checkpoint-every 50

AdamW's two averages take 8 P bytes, half of the 16 P of training. They are needed only where a
parameter is updated; so each rank updates about 1 / n of them and sends the result to the others:
at least 8 P + 8 P / n bytes on the rank with most (a parameter is not cut in two, so shares
differ), for broadcasts of 4 P more a step than DDP. A checkpoint holds every
average under its parameter's name, whichever rank had it, so a resumed run may have another
number of ranks (https://arxiv.org/abs/1910.02054). Read fsdp.py next, which shares out the
gradients and the weights too; docs/recipes.md has the measured memory of all stages.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "numpy", "distrun"]
#
# [tool.distrun]
# strategy = "ddp"
# nproc-per-node = 2
#
# [tool.distrun.verify]
# reference = "single"
# args = ["--warmup-steps", "5"]
#
# [tool.distrun.verify.layouts]
# "zero1 2" = { ranks = 2 }
# "zero1 4" = { ranks = 4 }
# "zero1 2, 2 micro-batches" = { ranks = 2, args = ["--accumulate", "2"] }
# ///

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from data import Shard, Windows, as_text, batches, open_text, require_text
from model import GPT, decay_groups, model_config, prepare_blocks, sample
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
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
    micro_batch = config.batch_size // config.accumulate
    meshes.require_divides("--batch-size", config.batch_size, config.accumulate, "micro-batches")
    meshes.require_divides("a micro-batch of", micro_batch, world_size, "ranks")
    return meshes.sizes(world_size, data=-1)


def build_model(config: Config) -> GPT:
    """Build the whole model, equal for equal seeds."""
    model = GPT(model_config(config.size, tied=config.tied)).init_weights(config.seed)
    return model.to(master_dtype(config.precision))


def parallelize(model: GPT, mesh: DeviceMesh, config: Config) -> DistributedDataParallel:
    """Return the model as it trains on this rank: a copy, equal to rank 0's."""
    prepare_blocks(model.blocks.values(), config.recompute, config.compile)
    return DistributedDataParallel(
        model,
        process_group=mesh.get_group("data"),
        init_sync=False,
        gradient_as_bucket_view=True,  # gradients are views into the buckets: 4 P bytes less
    )


def build_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """Return AdamW over this rank's share of the parameters; the others send it the rest."""
    groups = decay_groups(model, config.weight_decay)
    return ZeroRedundancyOptimizer(
        groups, optimizer_class=AdamW, lr=config.lr, betas=(0.9, config.beta2), fused=True
    )


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
                last = micro == config.accumulate - 1
                # One all_reduce a step: earlier micro-batches only add up, forward() included.
                with contextlib.nullcontext() if last else model.no_sync():
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
