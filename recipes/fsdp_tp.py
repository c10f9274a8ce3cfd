"""FSDP over tensor parallelism: a mesh of two axes, `shard` between nodes and `tp` inside them.

    distrun launch --nproc-per-node 4 recipes/fsdp_tp.py
    torchrun --nproc-per-node 4 recipes/fsdp_tp.py --tp 2 --precision bfloat16

Rank r has place r // tp along `shard` and r % tp along `tp`: neighbours share each matrix, as they
share the fastest links. Each then shards its part of it again, with those that have the same
part: 16 P / (shard · tp) bytes a rank, after a start with the whole model, 4 P, on each. The
gathers of FSDP move P / tp numbers instead of P, and the sums of tp.py move the tokens of one
`shard` place instead of all. A parameter is a DTensor on both axes, and one norm over all gradients
needs both: train.optim.clip_grad_norm. Read pp.py next.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "numpy", "distrun"]
#
# [tool.distrun]
# strategy = "fsdp"
# nproc-per-node = 4
#
# [tool.distrun.verify]
# reference = "single"
# alone = ["--tp", "1"]
# args = ["--warmup-steps", "5"]
#
# [tool.distrun.verify.layouts]
# "fsdp 2 x tp 2" = { ranks = 4 }
# "fsdp 2 x tp 2, 2 micro-batches" = { ranks = 4, args = ["--accumulate", "2"] }
# "fsdp 2 x tp 2, logits whole" = { ranks = 4, args = ["--no-loss-parallel"] }
# ///

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from data import Shard, Windows, as_text, batches, open_text, require_text
from model import GPT, decay_groups, model_config, prepare_blocks, sample
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor import Shard as Cut
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer

from distrun.train import mesh as meshes
from distrun.train import optim
from distrun.train.checkpoint import Checkpoints
from distrun.train.config import ConfigError, TextConfig, option, parse
from distrun.train.precision import GradScaler, compute_dtype, master_dtype
from distrun.train.progress import Progress
from distrun.train.setup import Place, shorten_timeout, start


@dataclass(frozen=True)
class Config(TextConfig):
    """The settings; each is a flag."""

    tp: int = option(2, "ranks that share each matrix", 1)
    reshard: bool = option(True, "drop gathered weights after each pass (ZeRO-3; else ZeRO-2)")
    loss_parallel: bool = option(True, "keep the logits cut along the vocabulary")


def axes(config: Config, world_size: int) -> dict[str, int]:
    """Return the mesh: ranks that see different data, and those that share each matrix."""
    sizes = meshes.sizes(world_size, shard=-1, tp=config.tp)
    require_tp_fits(config, config.tp)
    micro_batch = config.batch_size // config.accumulate
    meshes.require_divides("--batch-size", config.batch_size, config.accumulate, "micro-batches")
    meshes.require_divides("a micro-batch of", micro_batch, sizes["shard"], "shard ranks")
    return sizes


def require_tp_fits(config: Config, tp: int) -> None:
    """Refuse what cannot be cut among `tp` ranks."""
    shape = model_config(config.size, tied=config.tied)
    meshes.require_divides("heads", shape.heads, tp, "tp ranks")
    meshes.require_divides("hidden units", shape.hidden, tp, "tp ranks")
    meshes.require_divides("vocabulary", shape.vocab_size, tp, "tp ranks")
    meshes.require_divides("--seq-len", config.seq_len, tp, "tp ranks")
    if shape.tied:  # both would get a copy of their own, without a word
        raise ConfigError(
            f"--size {config.size}: embedding and head are one matrix, which tensor parallelism"
            " cuts in two ways; --no-tied makes two"
        )


def build_model(config: Config) -> GPT:
    """Build the whole model, equal for equal seeds."""
    model = GPT(model_config(config.size, tied=config.tied)).init_weights(config.seed)
    return model.to(master_dtype(config.precision))


def parallelize(model: GPT, mesh: DeviceMesh, config: Config) -> nn.Module:
    """Cut every matrix among `tp`, then shard the parts among `shard`, in place."""
    tp = mesh["tp"]
    ends = {
        "embed": RowwiseParallel(input_layouts=Replicate(), output_layouts=Cut(1)),  # along T
        "norm": SequenceParallel(),
        "head": ColwiseParallel(
            input_layouts=Cut(1),
            output_layouts=Cut(-1) if config.loss_parallel else Replicate(),  # along V, or whole
            use_local_output=False,
        ),
    }
    block_plan = {
        "attention_norm": SequenceParallel(),  # [B, T / n, D]
        # One all_gather for q, k and v together: [B, T / n, D] -> [B, T, D]
        "attention": PrepareModuleInput(
            input_layouts=(Cut(1), None, None), desired_input_layouts=(Replicate(), None, None)
        ),
        "attention.q": ColwiseParallel(),  # [B, T, D] -> [B, T, D / n]: H / n heads
        "attention.k": ColwiseParallel(),
        "attention.v": ColwiseParallel(),
        "attention.out": RowwiseParallel(output_layouts=Cut(1)),  # a sum -> [B, T / n, D]
        "feed_forward_norm": SequenceParallel(),
        "feed_forward": PrepareModuleInput(
            input_layouts=(Cut(1),), desired_input_layouts=(Replicate(),)
        ),
        "feed_forward.gate": ColwiseParallel(),
        "feed_forward.up": ColwiseParallel(),
        "feed_forward.down": RowwiseParallel(output_layouts=Cut(1)),
    }
    parallelize_module(model, tp, ends)
    for block in model.blocks.values():
        parallelize_module(block, tp, block_plan)
    prepare_blocks(model.blocks.values(), config.recompute, config.compile)
    # Weights travel and multiply in `compute`; gradients are summed in float32.
    compute = compute_dtype(config.precision)
    master = master_dtype(config.precision)
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=master)
    exact = MixedPrecisionPolicy(compute, master, output_dtype=master)  # logits, for the loss
    shard = functools.partial(fully_shard, mesh=mesh["shard"], reshard_after_forward=config.reshard)
    for block in model.blocks.values():
        shard(block, mp_policy=policy)
    # What is left: embedding, norm, head. Backward begins with them: they stay.
    shard(model, mp_policy=exact, reshard_after_forward=False)
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
    logits = model(tokens)  # a DTensor of [rows, T, V], cut along V or whole
    if not logits.placements[0].is_shard():
        logits = logits.to_local()  # here and not in the model: a view makes FSDP warn
    mean = cross_entropy(logits.flatten(0, 1), targets.flatten())
    return mean.full_tensor() if isinstance(mean, DTensor) else mean


def loss_context(config: Config) -> contextlib.AbstractContextManager[object]:
    """Return what makes cross_entropy, forward and backward, work on logits cut along V."""
    return loss_parallel() if config.loss_parallel else contextlib.nullcontext()


@torch.no_grad()
def evaluate(model: nn.Module, windows: Windows, config: Config, device: torch.device) -> Tensor:
    """Return the mean loss over this rank's part of the first validation batches."""
    model.eval()
    total = torch.zeros((), device=device, dtype=torch.float64)
    passes = config.eval_batches * config.accumulate  # no more at once than in training
    for step in range(config.eval_batches):
        for tokens, targets in zip(*batch(step, windows), strict=True):
            with loss_context(config):
                total += loss(model, tokens.to(device), targets.to(device)) / passes
    model.train()
    return total


def full_logits(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the model with its logits whole on every rank."""

    def forward(tokens: Tensor) -> Tensor:
        logits = model(tokens)
        return logits.full_tensor() if isinstance(logits, DTensor) else logits

    return forward


def train(config: Config, place: Place) -> None:
    """Train, evaluate and save, on each rank."""
    device = place.device
    mesh = place.mesh(axes(config, place.world_size))
    shard = Shard(mesh["shard"].get_local_rank(), mesh["shard"].size())
    training, validation = open_text(config, shard)

    model = parallelize(build_model(config).to(device), mesh, config)
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
                model.set_reshard_after_backward(last or config.reshard)
                with loss_context(config):
                    micro_loss = loss(model, tokens[micro], targets[micro]) / config.accumulate
                    scaler.scale(micro_loss).backward()
                step_loss += micro_loss.detach()
            seen = targets.numel() / mesh["tp"].size()  # ranks of `tp` share the same tokens
            mean_loss = progress.agree(step, step_loss, seen, good=checkpoints.last_good)
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
        text = sample(full_logits(model), first, config.sample, config.seq_len, 0)
        place.say(as_text(text))


def main() -> None:
    """Read the flags, join the other ranks, train."""
    config = parse(Config, axes, require_text)
    with start(config) as place:  # init_process_group, set_device(LOCAL_RANK): train/setup.py
        train(config, place)


if __name__ == "__main__":
    main()
