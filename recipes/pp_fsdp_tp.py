"""Three axes at once: a pipeline of stages, each sharded by FSDP and cut by tensor parallelism.

    distrun launch --nproc-per-node 8 recipes/pp_fsdp_tp.py
    torchrun --nproc-per-node 8 recipes/pp_fsdp_tp.py --pp 2 --tp 2

How models that fill a cluster are trained: `tp` inside a node, where a message is cheap and every
matrix waits for one; `shard` between the nodes of a stage; `pp` between the stages, which send
least. Rank r has place r // (shard · tp) along `pp`. 16 P / (pp · shard · tp) bytes a rank, and
8 P / (pp · tp) while micro-batches flow: gathered weights (half in bfloat16) and whole gradients.
8B on 2 · 2 · 2 ranks takes 18 + 18 GB each, and at the start all 35 GB. Nothing is new since
fsdp_tp.py and pp.py but their order: cut out the stage, cut its matrices, then shard them.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "numpy", "distrun"]
#
# [tool.distrun]
# strategy = "pp"
# nproc-per-node = 8
#
# [tool.distrun.verify]
# reference = "single"
# alone = ["--pp", "1", "--tp", "1"]
# args = ["--warmup-steps", "5"]
#
# [tool.distrun.verify.layouts]
# "pp 2 x fsdp 2 x tp 2" = { ranks = 8 }
# ///

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from data import Shard, Windows, batches, open_text, require_text
from model import GPT, decay_groups, model_config, prepare_blocks
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.distributed.tensor import Replicate
from torch.distributed.tensor import Shard as Cut
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.distributed.tensor.parallel.style import ParallelStyle
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer

from distrun.train import mesh as meshes
from distrun.train import optim
from distrun.train.checkpoint import Checkpoints
from distrun.train.config import ConfigError, TextConfig, option, parse
from distrun.train.precision import GradScaler, autocast, compute_dtype, master_dtype
from distrun.train.progress import Progress
from distrun.train.setup import Place, shorten_timeout, start


@dataclass(frozen=True)
class Config(TextConfig):
    """The settings; each is a flag."""

    accumulate: int = option(4, "micro-batches a step, which flow through the stages", 1)
    pp: int = option(2, "ranks of the pipeline", 1)
    tp: int = option(2, "ranks that share each matrix", 1)


def axes(config: Config, world_size: int) -> dict[str, int]:
    """Return the mesh: stages, in each ranks that see different data, in those parts of each."""
    sizes = meshes.sizes(world_size, pp=config.pp, shard=-1, tp=config.tp)
    shape = model_config(config.size, tied=config.tied)
    meshes.require_divides("heads", shape.heads, config.tp, "tp ranks")
    meshes.require_divides("hidden units", shape.hidden, config.tp, "tp ranks")
    meshes.require_divides("vocabulary", shape.vocab_size, config.tp, "tp ranks")
    meshes.require_divides("--seq-len", config.seq_len, config.tp, "tp ranks")
    meshes.require_divides("layers", shape.layers, config.pp, "stages")
    micro_batch = config.batch_size // config.accumulate
    meshes.require_divides("--batch-size", config.batch_size, config.accumulate, "micro-batches")
    meshes.require_divides("a micro-batch of", micro_batch, sizes["shard"], "shard ranks")
    if config.accumulate < config.pp:
        raise ConfigError(
            f"--accumulate {config.accumulate} is below the {config.pp} stages, which would"
            f" wait for one another: --accumulate {config.pp}"
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
    """Return this rank's stage, by its number."""
    number = mesh["pp"].get_local_rank()
    stage = cut_out(model, number, config.pp)
    whole = stage.forward
    # A later stage's input is [rows, T / tp, D]: it cannot see how long T is.
    positions = torch.arange(config.seq_len, device=mesh.device_type)

    def forward(x: Tensor) -> Tensor:
        return whole(x, positions).clone()  # FSDP warns of views, such as a DTensor's local part

    stage.forward = forward  # type: ignore[assignment, method-assign]
    cut_matrices(stage, mesh["tp"])
    prepare_blocks(stage.blocks.values(), config.recompute, config.compile)
    return nn.ModuleDict({str(number): share(stage, mesh["shard"], config)})


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


def cut_matrices(stage: GPT, tp: DeviceMesh) -> None:
    """Cut every matrix among the ranks of `tp`, as in tp.py."""
    ends: dict[str, ParallelStyle] = {}
    if stage.embed is not None:
        ends["embed"] = RowwiseParallel(input_layouts=Replicate(), output_layouts=Cut(1))
    if stage.head is not None:  # the schedule wants the logits whole
        ends["norm"] = SequenceParallel()
        ends["head"] = ColwiseParallel(input_layouts=Cut(1), output_layouts=Replicate())
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
    if ends:
        parallelize_module(stage, tp, ends)
    for block in stage.blocks.values():
        parallelize_module(block, tp, block_plan)


def share(stage: GPT, data: DeviceMesh, config: Config) -> nn.Module:
    """Return the stage as ranks with other data share it."""
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
) -> Schedule1F1B:
    """Return what runs forward and backward of all micro-batches; it knows the messages."""
    group, device = mesh["pp"].get_group(), torch.device(mesh.device_type)
    ((number, module),) = stages.items()
    stage = PipelineStage(module, int(number), config.pp, device, group=group)

    def scaled_loss(logits: Tensor, targets: Tensor) -> Tensor:
        return scaler.scale(loss(logits, targets))

    return Schedule1F1B(stage, config.accumulate, loss_fn=scaled_loss)


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
    """Send all micro-batches through the stages, as in pp.py; return their mean loss."""
    losses, is_last = list[Tensor](), str(config.pp - 1) in stages
    inputs = [tokens.flatten(0, 1)] if "0" in stages else []  # the schedule cuts it up again
    with autocast(config.precision, tokens.device):
        last = targets.flatten(0, 1) if is_last else None
        run(*inputs, target=last, losses=losses, return_outputs=False)  # all logits would stay
    if not is_last:
        return torch.zeros((), device=tokens.device)
    return torch.stack(losses).detach().mean()


@torch.no_grad()
def evaluate(
    schedule: Schedule1F1B,
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
    shard = Shard(mesh["shard"].get_local_rank(), mesh["shard"].size())
    training, validation = open_text(config, shard)

    stages = parallelize(build_model(config).to(device), mesh, config)
    optimizer = build_optimizer(stages, config)
    scaler = GradScaler(config.precision, device)
    schedule = build_schedule(stages, mesh, config, scaler)
    # The last stage alone knows the loss; of all ranks' shares its ranks have the whole.
    last_ranks = mesh["shard"].size() * mesh["tp"].size()
    share = 1 / last_ranks if str(config.pp - 1) in stages else 0.0
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
            seen = targets.numel() * mesh["shard"].size() / place.world_size  # others see the same
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
