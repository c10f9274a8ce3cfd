"""DistributedDataParallel on the GPT: every rank has the whole model and a part of the batch.

    distrun launch recipes/ddp_gpt.py
    distrun launch --nodes 2 recipes/ddp_gpt.py --accumulate 2 --hook powersgd
    torchrun --nproc-per-node 2 recipes/ddp_gpt.py

What is new since single.py: parallelize() wraps the model, and backward() averages the
gradients over the ranks. An all_reduce of 4 P bytes moves 2 (n - 1) / n · 4 P over each link: on 2
ranks 1 MB a step for the 0.25 M of --size tiny and 0.5 GB for 124 M, on many twice that. It
runs in buckets of 25 MB beside the rest of backward, as soon as a bucket's gradients are there.
Memory stays at 16 P a rank. Read zero1.py next, which shares some of that out.
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
# "ddp 2" = { ranks = 2 }
# "ddp 4" = { ranks = 4 }
# "ddp 2, 2 micro-batches" = { ranks = 2, args = ["--accumulate", "2"] }
# ///

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

import torch
from data import Shard, Windows, as_text, batches, open_text, require_text
from model import GPT, decay_groups, model_config, prepare_blocks, sample
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW, Optimizer

from distrun.train import mesh as meshes
from distrun.train import optim
from distrun.train.checkpoint import Checkpoints
from distrun.train.config import ConfigError, TextConfig, option, parse
from distrun.train.precision import GradScaler, autocast, master_dtype
from distrun.train.progress import Progress
from distrun.train.setup import Place, shorten_timeout, start


@dataclass(frozen=True)
class Config(TextConfig):
    """The settings; each is a flag."""

    hook: Literal["none", "fp16", "powersgd"] = option("none", "how gradients travel")
    static_graph: bool = option(False, "promise that each step uses the same parameters")


def axes(config: Config, world_size: int) -> dict[str, int]:
    """Return the mesh: one axis, of the ranks that see different data."""
    micro_batch = config.batch_size // config.accumulate
    meshes.require_divides("--batch-size", config.batch_size, config.accumulate, "micro-batches")
    meshes.require_divides("a micro-batch of", micro_batch, world_size, "ranks")
    if config.static_graph and config.accumulate > 1:
        raise ConfigError("--static-graph: passes without all_reduce differ: --accumulate 1")
    return meshes.sizes(world_size, data=-1)


def build_model(config: Config) -> GPT:
    """Build the whole model, equal for equal seeds."""
    model = GPT(model_config(config.size, tied=config.tied)).init_weights(config.seed)
    return model.to(master_dtype(config.precision))


def parallelize(model: GPT, mesh: DeviceMesh, config: Config) -> DistributedDataParallel:
    """Return the model as it trains on this rank: a copy, equal to rank 0's."""
    prepare_blocks(model.blocks.values(), config.recompute, config.compile)
    group = mesh.get_group("data")
    ddp = DistributedDataParallel(
        model,
        process_group=group,
        init_sync=False,  # all ranks have drawn the same from the seed: nothing to send
        gradient_as_bucket_view=True,  # gradients are views into the buckets: 4 P bytes less
        static_graph=config.static_graph,
        # PowerSGD's own messages of two buckets would cross one another on gloo
        bucket_cap_mb=1 << 20 if config.hook == "powersgd" else None,
    )
    if config.hook == "fp16":  # half the bytes; 3 digits of each gradient are left
        ddp.register_comm_hook(group, default_hooks.fp16_compress_hook)
    elif config.hook == "powersgd":  # [m, n] travels as [m, r] and [n, r], here r = 4
        # What a step leaves out is added to the next; a resumed run begins without it.
        state = powerSGD_hook.PowerSGDState(
            group, matrix_approximation_rank=4, start_powerSGD_iter=10
        )
        ddp.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    return ddp


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
