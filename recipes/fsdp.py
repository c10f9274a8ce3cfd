"""Fully sharded data parallel: each rank keeps 1 / n of weights, gradients and optimizer state.

    distrun launch recipes/fsdp.py
    distrun launch --nproc-per-node 4 recipes/fsdp.py --replicate 2 --precision bfloat16
    torchrun --nproc-per-node 2 recipes/fsdp.py --no-reshard

FSDP2 (`fully_shard`) gathers the weights of one block just before it runs, and drops them
after it: 16 P / n bytes a rank, one or two whole blocks, and embedding and head, which stay.
The price: in each of A micro-batches (--accumulate) an all_gather of the weights in forward and
another in backward (ZeRO-3; embedding and head come once), and in the last a reduce_scatter of
the gradients: at most (2 A + 1) · 4 P (n - 1) / n bytes where DDP moves 2 · 4 P (n - 1) / n. Until
the last one gradients are whole: 4 P more memory if A > 1. With --no-reshard the weights stay until
the last backward (ZeRO-2): one all_gather, DDP's traffic, and 4 P more memory. --replicate R makes
groups that share, and R copies of them (HSDP): gathers stay inside a group, which may be one node's
NVLink. Without --meta every rank first builds the whole model, 4 P bytes, in its host's memory:
35 GB for 8B.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "numpy", "distrun"]
#
# [tool.distrun]
# strategy = "fsdp"
# nproc-per-node = 2
#
# [tool.distrun.verify]
# reference = "single"
# args = ["--warmup-steps", "5"]
#
# [tool.distrun.verify.layouts]
# "fsdp 2" = { ranks = 2 }
# "fsdp 2, ZeRO-2" = { ranks = 2, args = ["--no-reshard"] }
# "fsdp 4" = { ranks = 4 }
# "hsdp 2x2" = { ranks = 4, args = ["--replicate", "2"] }
# "fsdp 2, 2 micro-batches" = { ranks = 2, args = ["--accumulate", "2"] }
# "fsdp 2, ZeRO-2, 2 micro-batches" = { ranks = 2, args = ["--no-reshard", "--accumulate", "2"] }
# ///

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from data import Shard, Windows, as_text, batches, open_text, require_text
from model import GPT, decay_groups, model_config, prepare_blocks, sample
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer

from distrun.train import mesh as meshes
from distrun.train import optim
from distrun.train.checkpoint import Checkpoints
from distrun.train.config import TextConfig, option, parse
from distrun.train.precision import GradScaler, compute_dtype, master_dtype
from distrun.train.progress import Progress
from distrun.train.setup import Place, shorten_timeout, start


@dataclass(frozen=True)
class Config(TextConfig):
    """The settings; each is a flag."""

    replicate: int = option(1, "copies of the sharded model (HSDP)", 1)
    reshard: bool = option(True, "drop gathered weights after each pass (ZeRO-3; else ZeRO-2)")
    offload: bool = option(False, "keep shards and optimizer in the CPU's memory")
    meta: bool = option(False, "build without memory; rank 0 alone draws the weights")


def axes(config: Config, world_size: int) -> dict[str, int]:
    """Return the mesh: copies, and the ranks that share one; all of them see different data."""
    micro_batch = config.batch_size // config.accumulate
    meshes.require_divides("--batch-size", config.batch_size, config.accumulate, "micro-batches")
    meshes.require_divides("a micro-batch of", micro_batch, world_size, "ranks")
    return meshes.sizes(world_size, replicate=config.replicate, shard=-1)


def build_model(config: Config) -> GPT:
    """Build the whole model, equal for equal seeds; on the meta device it takes no memory."""
    dtype = master_dtype(config.precision)
    if config.meta:
        with torch.device("meta"):
            return GPT(model_config(config.size, tied=config.tied)).to(dtype)
    return GPT(model_config(config.size, tied=config.tied)).init_weights(config.seed).to(dtype)


def parallelize(model: GPT, mesh: DeviceMesh, config: Config) -> nn.Module:
    """Shard every block, then what is left, in place: parameters become DTensors."""
    prepare_blocks(model.blocks.values(), config.recompute, config.compile)
    # Weights travel and multiply in `compute`; gradients are summed in float32.
    compute = compute_dtype(config.precision)
    master = master_dtype(config.precision)
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=master)
    exact = MixedPrecisionPolicy(compute, master, output_dtype=master)  # logits, for the loss
    pin = mesh.device_type == "cuda"  # so that copies to the GPU run beside the computation
    shard = functools.partial(
        fully_shard,
        mesh=mesh if config.replicate > 1 else mesh["shard"],
        reshard_after_forward=config.reshard,
        offload_policy=CPUOffloadPolicy(pin_memory=pin) if config.offload else OffloadPolicy(),
    )
    for block in model.blocks.values():
        shard(block, mp_policy=policy)
    # What is left: embedding, norm, head. Backward begins with them: they stay.
    shard(model, mp_policy=exact, reshard_after_forward=False)
    if config.meta:
        materialise(model, mesh, config)
    return model


def materialise(model: GPT, mesh: DeviceMesh, config: Config) -> None:
    """Give a sharded meta model the weights of the seed: rank 0 draws all, each takes its part.

    Drawing in place on each rank would fill all shards with the same numbers, on a CPU.
    """
    model.to_empty(device="cpu" if config.offload else mesh.device_type)
    whole = {}
    if mesh.get_rank() == 0:
        whole = GPT(model.config).init_weights(config.seed).state_dict()
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, whole, options=options)


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
            total += loss(model, tokens.to(device), targets.to(device)) / passes
    model.train()
    return total


def train(config: Config, place: Place) -> None:
    """Train, evaluate and save, on each rank."""
    device = place.device
    mesh = place.mesh(axes(config, place.world_size))
    shard = Shard(place.rank, place.world_size)
    training, validation = open_text(config, shard)

    model = parallelize(build_model(config), mesh, config)
    assert isinstance(model, FSDPModule)  # fully_shard has changed its class
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
                model.set_requires_gradient_sync(last)  # one reduce_scatter a block and step
                # ZeRO-2 gathers once a step: the optimizer, after the last, changes the shards
                model.set_reshard_after_backward(last or config.reshard)
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
