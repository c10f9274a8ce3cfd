"""Fine-tuning of published weights with FSDP: GPT-2 and Llama, all parameters or LoRA.

    distrun launch recipes/finetune.py --weights gpt2 --data tokens
    distrun launch recipes/finetune.py --weights llama --lora 8 --lr 1e-3 --output tuned
    torchrun --nproc-per-node 2 recipes/finetune.py --lora 8

--weights is a folder with safetensors files as they are published (published.py lists the layouts);
without it a small Llama with random weights is trained, to try the recipe. Each rank holds
1 / n of the model from the start: it is built without memory, sharded, and filled tensor by tensor
from the mapped files, of which a rank keeps its part. Every node has to see the folder.
All P parameters take 16 P / n bytes a rank, as in fsdp.py (distrun recipes diff fsdp finetune).
With --lora r the published weights have neither gradients nor averages: 4 P / n, and 16 bytes for
each of the few numbers that are trained. --output writes the result as it was published, LoRA
added in. --data holds tokens of the model's own tokenizer; docs/recipes.md shows how to write them.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "numpy", "safetensors", "distrun"]
#
# [tool.distrun]
# strategy = "fsdp"
# nproc-per-node = 2
#
# [tool.distrun.verify]
# args = ["--warmup-steps", "5", "--lr", "1e-3"]
#
# [tool.distrun.verify.layouts]
# "finetune 2" = { ranks = 2 }
# "finetune 4" = { ranks = 4 }
# "finetune 2, LoRA" = { ranks = 2, args = ["--lora", "4"], alone = ["--lora", "4"] }
# ///

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from data import Shard, Windows, as_text, batches, open_windows
from model import decay_groups, prepare_blocks, sample
from pretrained import SMALL, LoRALinear, Pretrained, PretrainedConfig, add_lora
from published import Published
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer

from distrun.train import mesh as meshes
from distrun.train import optim
from distrun.train.checkpoint import Checkpoints
from distrun.train.config import ConfigError, WindowConfig, option, parse
from distrun.train.precision import GradScaler, compute_dtype, master_dtype
from distrun.train.progress import Progress
from distrun.train.setup import Place, shorten_timeout, start


@dataclass(frozen=True)
class Config(WindowConfig):
    """The settings; each is a flag."""

    lr: float = option(1e-4, "peak learning rate; with --lora ten times as much", 0)
    weights: str = option("", "folder of published weights; default: small and random")
    lora: int = option(0, "rank of the matrices that are trained instead; 0: train all", 0, 4096)
    lora_alpha: float = option(16.0, "what they add counts alpha / rank", 0)
    lora_on: Literal["attention", "all"] = option("attention", "matrices of a block with LoRA")
    output: str = option("", "folder for the result, in the layout of --weights")
    reshard: bool = option(True, "drop gathered weights after each pass (ZeRO-3; else ZeRO-2)")


def axes(config: Config, world_size: int) -> dict[str, int]:
    """Return the mesh: one axis, of ranks that share the model and see different data."""
    micro_batch = config.batch_size // config.accumulate
    meshes.require_divides("--batch-size", config.batch_size, config.accumulate, "micro-batches")
    meshes.require_divides("a micro-batch of", micro_batch, world_size, "ranks")
    return meshes.sizes(world_size, shard=-1)


def require_weights(config: Config, world_size: int) -> None:
    """Refuse weights and data that cannot be used before any process group is there."""
    if config.output and not config.weights:
        raise ConfigError("--output writes in the layout of --weights, and there are none")
    if config.output and Path(config.output).resolve() == Path(config.weights).resolve():
        raise ConfigError("--output is the folder of --weights, which is read until the end")
    if config.weights:
        Published(Path(config.weights)).require_all()
    shape = shape_of(config)
    if 0 < shape.max_positions < config.seq_len:
        limit = f"{shape.max_positions} positions of the model"
        raise ConfigError(f"--seq-len {config.seq_len} is more than the {limit}")
    for windows in open_windows(config, Shard(), shape.vocab_size):
        windows[0]


def shape_of(config: Config) -> PretrainedConfig:
    """Return the model's shape."""
    return Published(Path(config.weights)).config if config.weights else SMALL


def build_model(config: Config) -> Pretrained:
    """Build the model on the meta device, where it takes no memory."""
    with torch.device("meta"):
        model = Pretrained(shape_of(config))
        if config.lora:
            scale = config.lora_alpha / config.lora
            add_lora(model, config.lora, scale, everywhere=config.lora_on == "all")
    return model.to(master_dtype(config.precision))


def parallelize(model: Pretrained, mesh: DeviceMesh, config: Config) -> nn.Module:
    """Shard every block, then what is left, in place; then fill in the weights."""
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
    read = Published(Path(config.weights)).read if config.weights else None
    model.to_empty(device=mesh.device_type)
    fill(model, drawn(model, config.seed, read))
    return model


def drawn(
    model: nn.Module, seed: int, read: Callable[[str], Tensor] | None
) -> Callable[[str], Tensor]:
    """Return what gives the whole tensor of a parameter: the file's, or one drawn from the seed."""
    base, beside = (torch.Generator().manual_seed(seed) for _ in range(2))

    def whole(name: str) -> Tensor:
        shape = model.get_parameter(name).shape
        if name.endswith("lora_b"):
            return torch.zeros(shape)  # B · A = 0: the first loss is the published model's
        if name.endswith("lora_a"):
            return torch.randn(shape, generator=beside) / math.sqrt(shape[1])
        if read is not None:
            return read(name)
        return torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=base) / 50

    return whole


@torch.no_grad()
def fill(model: nn.Module, whole: Callable[[str], Tensor]) -> None:
    """Give each rank its part of each tensor; no message is sent, and one tensor is in memory."""
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor)
        part = distribute_tensor(
            whole(name).to(parameter.dtype),
            parameter.device_mesh,
            parameter.placements,
            src_data_rank=None,  # every rank cuts its own copy
        )
        parameter.to_local().copy_(part.to_local())


def build_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """Return AdamW over what this rank holds and trains; to be called after `parallelize`."""
    groups = decay_groups(model, config.weight_decay)
    return AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True)


def batch(step: int, windows: Windows) -> tuple[Tensor, Tensor]:
    """Return this rank's tokens and targets of a step: two of [accumulate, rows, T]."""
    tokens = windows[step]
    return tokens[..., :-1], tokens[..., 1:]


def loss(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over the tokens of -log p(next token), in nats: a scalar with a graph."""
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


@torch.no_grad()
def write(model: nn.Module, config: Config, place: Place) -> None:
    """Write the model as it was published: rank 0 gathers it, tensor by tensor, in CPU memory."""
    whole: dict[str, Tensor] = {}
    for name, parameter in model.state_dict().items():
        tensor = parameter.full_tensor()  # on all ranks: a collective call
        if place.rank == 0:
            whole[name] = tensor.cpu()
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear) and place.rank == 0:
            a, b = whole.pop(f"{name}.lora_a"), whole.pop(f"{name}.lora_b")
            whole[f"{name}.weight"] += module.scale * b @ a  # [out, r] x [r, in]
    if place.rank == 0:
        Published(Path(config.weights)).write(whole, Path(config.output))
        place.say(f"wrote {config.output}")


def train(config: Config, place: Place) -> None:
    """Train, evaluate and save, on each rank."""
    device = place.device
    mesh = place.mesh(axes(config, place.world_size))
    shape, shard = shape_of(config), Shard(place.rank, place.world_size)
    training, validation = open_windows(config, shard, shape.vocab_size)

    model = parallelize(build_model(config), mesh, config)
    assert isinstance(model, FSDPModule)  # fully_shard has changed its class
    optimizer = build_optimizer(model, config)
    scaler = GradScaler(config.precision, device)
    flops = shape.flops_per_token(config.seq_len, sum(p.numel() for p in model.parameters()))

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
    if config.output:
        write(model, config, place)


def main() -> None:
    """Read the flags, join the other ranks, train."""
    config = parse(Config, axes, require_weights)
    with start(config) as place:  # init_process_group, set_device(LOCAL_RANK): train/setup.py
        train(config, place)


if __name__ == "__main__":
    main()
