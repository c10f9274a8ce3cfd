"""Pipeline parallelism: each rank has some of the layers, and micro-batches flow through them.

    distrun launch recipes/pp.py
    distrun launch --nproc-per-node 4 recipes/pp.py --pp 2 --beside fsdp
    torchrun --nproc-per-node 2 recipes/pp.py --flow interleaved --accumulate 8

A stage sends [rows, T, D] to the next and takes the same back in backward: little, and only
between neighbours, so stages may be far apart. But until the first micro-batch has reached it, a
stage waits: of S stages and M micro-batches, (S - 1) / (M + S - 1) of the time is this bubble:
1/5 for S = 2, M = 4. 1F1B runs backward as early as it can: at most S micro-batches' activations
are kept, not M. Interleaving gives each rank two stages, which about halves the bubble; S - 1
borders become 2 S - 1: three times the messages for S = 2, little more than twice for many. Memory:
16 P / S bytes, after a start with the whole model, 4 P, on each rank. What is left of the ranks
trains on other data, with DDP or FSDP (16 P / (S · n) bytes on n of them, and 8 P / S of gathered
weights and whole gradients). To compare: distrun recipes diff ddp_gpt pp. Next: pp_fsdp_tp.py.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "numpy", "distrun"]
#
# [tool.distrun]
# strategy = "pp"
# nproc-per-node = 2
#
# [tool.distrun.verify]
# reference = "single"
# alone = ["--pp", "1"]
# args = ["--warmup-steps", "5"]
#
# [tool.distrun.verify.layouts]
# "pp 2" = { ranks = 2 }
# "pp 4" = { ranks = 4, args = ["--pp", "4"] }
# "pp 2, interleaved" = { ranks = 2, args = ["--flow", "interleaved"] }
# "pp 2 x ddp 2" = { ranks = 4 }
# "pp 2 x ddp 2, gpipe" = { ranks = 4, args = ["--flow", "gpipe"] }
# "pp 2 x ddp 2, interleaved" = { ranks = 4, args = ["--flow", "interleaved"] }
# "pp 2 x fsdp 2" = { ranks = 4, args = ["--beside", "fsdp"] }
# "pp 2 x fsdp 2, gpipe" = { ranks = 4, args = ["--beside", "fsdp", "--flow", "gpipe"] }
# "pp 2 x fsdp 2, interleaved" = { ranks = 4, args = ["--beside", "fsdp", "--flow", "interleaved"] }
# ///

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from data import Shard, Windows, batches, open_text, require_text
from model import GPT, decay_groups, model_config, prepare_blocks
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
)
from torch.distributed.pipelining.schedules import PipelineScheduleMulti, PipelineScheduleSingle
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW, Optimizer

from distrun.train import mesh as meshes
from distrun.train import optim
from distrun.train.checkpoint import Checkpoints
from distrun.train.config import ConfigError, TextConfig, option, parse
from distrun.train.precision import GradScaler, autocast, compute_dtype, master_dtype
from distrun.train.progress import Progress
from distrun.train.setup import Place, shorten_timeout, start

Schedule = PipelineScheduleSingle | PipelineScheduleMulti


@dataclass(frozen=True)
class Config(TextConfig):
    """The settings; each is a flag."""

    accumulate: int = option(4, "micro-batches a step, which flow through the stages", 1)
    pp: int = option(2, "ranks of the pipeline", 1)
    flow: Literal["gpipe", "1f1b", "interleaved"] = option("1f1b", "the order of the passes")
    beside: Literal["ddp", "fsdp"] = option("ddp", "how ranks with the same layers share")

    @property
    def stages(self) -> int:
        """Stages of the whole pipeline: interleaved, each rank has two."""
        return self.pp * (2 if self.flow == "interleaved" else 1)


def axes(config: Config, world_size: int) -> dict[str, int]:
    """Return the mesh: the stages, and in each the ranks that see different data."""
    sizes = meshes.sizes(world_size, pp=config.pp, data=-1)
    shape = model_config(config.size, tied=config.tied)
    meshes.require_divides("layers", shape.layers, config.stages, "stages")
    micro_batch = config.batch_size // config.accumulate
    meshes.require_divides("--batch-size", config.batch_size, config.accumulate, "micro-batches")
    meshes.require_divides("a micro-batch of", micro_batch, sizes["data"], "data ranks")
    if config.accumulate < config.stages:
        raise ConfigError(
            f"--accumulate {config.accumulate} is below the {config.stages} stages, which would"
            f" wait for one another: --accumulate {config.stages}"
        )
    rounds = max(1, config.accumulate // config.pp)
    if config.flow == "interleaved" and config.accumulate % rounds:
        raise ConfigError(
            f"--accumulate {config.accumulate} does not make {rounds} equal rounds of interleaved"
            f" stages: --accumulate {config.accumulate // config.pp * config.pp}"
        )
    if shape.tied:
        raise ConfigError(
            f"--size {config.size}: embedding and head are one matrix, and here they are on two"
            " ranks; --no-tied makes two"
        )
    if config.sample:
        raise ConfigError("--sample: a pipeline does not write; single.py loads its checkpoint")
    return sizes


def build_model(config: Config) -> GPT:
    """Build the whole model, equal for equal seeds."""
    model = GPT(model_config(config.size, tied=config.tied)).init_weights(config.seed)
    return model.to(master_dtype(config.precision))


def parallelize(model: GPT, mesh: DeviceMesh, config: Config) -> nn.ModuleDict:
    """Return this rank's stages by number: stage s is on rank s % pp of the pipeline."""
    stages = nn.ModuleDict()
    for number in range(mesh["pp"].get_local_rank(), config.stages, config.pp):
        stage = cut_out(model, number, config.stages)
        prepare_blocks(stage.blocks.values(), config.recompute, config.compile)
        stages[str(number)] = share(stage, mesh["data"], config)
    return stages


def cut_out(model: GPT, number: int, count: int) -> GPT:
    """Return a stage: the whole without the other layers; names stay those of the whole."""
    per_stage = model.config.layers // count
    mine = range(number * per_stage, (number + 1) * per_stage)
    with torch.device("meta"):
        stage = GPT(model.config)
    stage.blocks = nn.ModuleDict({str(i): model.blocks[str(i)] for i in mine})
    stage.embed = model.embed if number == 0 else None
    stage.norm = model.norm if number == count - 1 else None
    stage.head = model.head if number == count - 1 else None
    return stage


def share(stage: GPT, data: DeviceMesh, config: Config) -> nn.Module:
    """Return the stage as ranks with other data share it."""
    if data.size() == 1:
        return stage
    if config.beside == "ddp":
        ddp = DistributedDataParallel(stage, process_group=data.get_group(), init_sync=False)
        # The schedule starts the one all_reduce itself; its trial pass, for shapes, must start none
        ddp.require_backward_grad_sync = False
        return ddp
    compute = compute_dtype(config.precision)
    master = master_dtype(config.precision)
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=master)
    exact = MixedPrecisionPolicy(compute, master, output_dtype=master)  # logits, for the loss
    # kept after forward: each micro-batch would gather them anew
    shard = functools.partial(fully_shard, mesh=data, reshard_after_forward=False)
    for block in stage.blocks.values():
        shard(block, mp_policy=policy)
    shard(stage, mp_policy=exact)  # what is left: embedding, norm, head
    return stage


def build_schedule(
    stages: nn.ModuleDict, mesh: DeviceMesh, config: Config, scaler: torch.amp.GradScaler
) -> Schedule:
    """Return what runs forward and backward of all micro-batches; it knows the messages."""
    group, device = mesh["pp"].get_group(), torch.device(mesh.device_type)
    parts: list[Any] = [  # torch's schedules take a list of a private base of PipelineStage
        PipelineStage(stage, int(number), config.stages, device, group=group)
        for number, stage in stages.items()
    ]

    def scaled_loss(logits: Tensor, targets: Tensor) -> Tensor:
        return scaler.scale(loss(logits, targets))

    if config.flow == "interleaved":
        return ScheduleInterleaved1F1B(parts, config.accumulate, loss_fn=scaled_loss)
    kind = Schedule1F1B if config.flow == "1f1b" else ScheduleGPipe
    return kind(parts[0], config.accumulate, loss_fn=scaled_loss)


def build_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """Return AdamW over what this rank holds; to be called after `parallelize`."""
    groups = decay_groups(model, config.weight_decay)
    return AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True)


def batch(step: int, windows: Windows) -> tuple[Tensor, Tensor]:
    """Return this rank's tokens and targets of a step: two of [accumulate, rows, T]."""
    tokens = windows[step]
    return tokens[..., :-1], tokens[..., 1:]


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over the tokens of -log p(next byte), in nats: a scalar with a graph."""
    return cross_entropy(logits.flatten(0, 1), targets.flatten())


def flow(
    run: Callable[..., object],
    tokens: Tensor,
    targets: Tensor,
    stages: nn.ModuleDict,
    config: Config,
) -> Tensor:
    """Send all micro-batches through the stages; return their mean loss, 0 but on the last stage.

    Args:
        run: The schedule's step, or its eval.
        tokens: [accumulate, rows, T]; the first stage alone looks at them.
        targets: Likewise; the last stage alone does.
        stages: This rank's.
        config: The settings.
    """
    losses, is_last = list[Tensor](), str(config.stages - 1) in stages
    inputs = [tokens.flatten(0, 1)] if "0" in stages else []  # the schedule cuts it up again
    with autocast(config.precision, tokens.device):
        last = targets.flatten(0, 1) if is_last else None
        run(*inputs, target=last, losses=losses, return_outputs=False)  # all logits would stay
    if not is_last:
        return torch.zeros((), device=tokens.device)
    return torch.stack(losses).detach().mean()


@torch.no_grad()
def evaluate(
    schedule: Schedule,
    windows: Windows,
    stages: nn.ModuleDict,
    config: Config,
    device: torch.device,
) -> Tensor:
    """Return the mean loss over this rank's part of the first validation batches."""
    total = torch.zeros((), device=device, dtype=torch.float64)
    for step in range(config.eval_batches):
        tokens, targets = (part.to(device) for part in batch(step, windows))
        total += flow(schedule.eval, tokens, targets, stages, config) / config.eval_batches
    return total


def train(config: Config, place: Place) -> None:
    """Train, evaluate and save, on each rank."""
    device = place.device
    mesh = place.mesh(axes(config, place.world_size))
    shard = Shard(mesh["data"].get_local_rank(), mesh["data"].size())
    training, validation = open_text(config, shard)

    stages = parallelize(build_model(config).to(device), mesh, config)
    optimizer = build_optimizer(stages, config)
    scaler = GradScaler(config.precision, device)
    schedule = build_schedule(stages, mesh, config, scaler)
    # The last stage alone knows the loss; of all ranks' shares its ranks have the whole.
    share = 1 / mesh["data"].size() if str(config.stages - 1) in stages else 0.0
    flops = model_config(config.size, tied=config.tied).flops_per_token(config.seq_len)

    with (
        Checkpoints(config, place, list(stages.values()), optimizer, scaler) as checkpoints,
        Progress(config, place, flops) as progress,
    ):
        begin = checkpoints.resume()
        for step, tokens, targets in batches(batch, training, begin, device):
            rate = optim.learning_rate(step, config)
            optim.set_learning_rate(optimizer, rate)
            step_loss = flow(schedule.step, tokens, targets, stages, config) / scaler.get_scale()
            seen = targets.numel() / mesh["pp"].size()  # all stages see the same tokens
            mean_loss = progress.agree(step, step_loss, seen, share, good=checkpoints.last_good)
            scaler.unscale_(optimizer)
            norm = optim.clip_grad_norm(stages.parameters(), config.clip, stages=config.pp)
            progress.require_finite(step, norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            progress.log(step, loss=mean_loss, lr=rate, grad_norm=norm)
            if progress.evaluates(step + 1):
                measured = evaluate(schedule, validation, stages, config, device)
                progress.evaluated(step + 1, measured / scaler.get_scale(), share)
            checkpoints.after(step + 1, stop=progress.stop)
            if step == begin:  # all ranks are there: from now on a late one is a lost one
                shorten_timeout()
            progress.leave_if_told()


def main() -> None:
    """Read the flags, join the other ranks, train."""
    config = parse(Config, axes, require_text)
    with start(config) as place:  # init_process_group, set_device(LOCAL_RANK): train/setup.py
        train(config, place)


if __name__ == "__main__":
    main()
