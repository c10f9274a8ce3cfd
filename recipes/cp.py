"""Context parallelism: each rank has the whole model and a part of every window's tokens.

    distrun launch recipes/cp.py --seq-len 1024
    distrun launch --nproc-per-node 4 recipes/cp.py --cp 2
    torchrun --nproc-per-node 2 recipes/cp.py --attention torch    # with GPUs

For windows too long for one device. All but attention works on single tokens and needs no
other rank. Attention needs all keys and values: they go round a ring, n - 1 times to the next
rank, 2 · 4 · B · T / n · D bytes a block and turn, while each rank's queries stay; the partial
results are put together by their logsumexp (https://arxiv.org/abs/2310.01889). A causal mask would
give the rank of the last tokens the most work; so the window is cut in 2 n pieces, and rank r has
pieces r and 2 n - 1 - r. Memory: activations take 1 / n, but the keys, values and results of all
turns are kept for backward, at most 3 · 4 · B · T · D bytes a block. The scores, a turn's
4 · B · H · (T / n)² bytes, are not: backward computes them anew. Gradients meet over all ranks, as
in ddp_gpt.py, with which to compare it: distrun recipes diff ddp_gpt cp.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "numpy", "distrun"]
#
# [tool.distrun]
# strategy = "cp"
# nproc-per-node = 2
#
# [tool.distrun.verify]
# reference = "single"
# alone = ["--cp", "1"]
# args = ["--warmup-steps", "5"]
#
# [tool.distrun.verify.layouts]
# "cp 2" = { ranks = 2 }
# "cp 4" = { ranks = 4, args = ["--cp", "4"] }
# "ddp 2 x cp 2" = { ranks = 4 }
# "cp 2, 2 micro-batches" = { ranks = 2, args = ["--accumulate", "2"] }
# ///

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from data import Shard, Windows, batches, open_text, require_text
from model import GPT, Attention, decay_groups, model_config, prepare_blocks
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.experimental import context_parallel
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW, Optimizer
from torch.utils.checkpoint import checkpoint

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

    cp: int = option(2, "ranks that share each window", 1)
    attention: Literal["ring", "torch"] = option("ring", "torch: context_parallel, GPUs only")


def axes(config: Config, world_size: int) -> dict[str, int]:
    """Return the mesh: ranks that see different windows, and those that share each."""
    sizes = meshes.sizes(world_size, data=-1, cp=config.cp)
    micro_batch = config.batch_size // config.accumulate
    meshes.require_divides("--batch-size", config.batch_size, config.accumulate, "micro-batches")
    meshes.require_divides("a micro-batch of", micro_batch, sizes["data"], "data ranks")
    meshes.require_divides("--seq-len", config.seq_len, 2 * config.cp, "pieces, 2 a rank")
    if config.attention == "torch" and not torch.cuda.is_available():
        raise ConfigError("--attention torch: context_parallel runs on GPUs alone; ring does here")
    if config.sample:
        raise ConfigError("--sample: a cut window does not write; single.py loads its checkpoint")
    return sizes


class PassOn(torch.autograd.Function):
    """Send to the next rank of the ring, receive from the one before; backward the other way."""

    @staticmethod
    def forward(context: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        context.group = group
        return PassOn.exchange(x, group, 1)

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor, None]:
        return PassOn.exchange(grad, context.group, -1), None

    @staticmethod
    def exchange(x: Tensor, group: dist.ProcessGroup, step: int) -> Tensor:
        rank, size = group.rank(), group.size()
        received = torch.empty_like(x, memory_format=torch.contiguous_format)
        to, source = ((rank + way * step) % size for way in (1, -1))
        works = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, x.contiguous(), group=group, group_peer=to),
                dist.P2POp(dist.irecv, received, group=group, group_peer=source),
            ]
        )
        for work in works:
            work.wait()
        return received


def pieces(rank: int, config: Config, device: torch.device) -> Tensor:
    """Return the positions of a rank's tokens: [T / n], an early piece and a late one."""
    both = torch.arange(config.seq_len, device=device).chunk(2 * config.cp)
    return torch.cat((both[rank], both[2 * config.cp - 1 - rank]))


def attend_to_part(q: Tensor, k: Tensor, v: Tensor, future: Tensor) -> tuple[Tensor, Tensor]:
    """Attend to some keys; return [B, H, T / n, D / H] and the scores' logsumexp."""
    exact = torch.promote_types(q.dtype, torch.float32)  # kernels too add up in no less
    with torch.autocast(q.device.type, enabled=False):
        scores = q.to(exact) / q.shape[-1] ** 0.5 @ k.to(exact).transpose(-2, -1)
    # not -inf: a piece that is all in the future would make 0 / 0
    scores = scores.masked_fill(future, -1e30)  # [B, H, T / n, T / n]
    part = scores.logsumexp(dim=-1, keepdim=True)
    return (scores - part).exp().to(v.dtype) @ v, part


def ring_attention(
    q: Tensor, k: Tensor, v: Tensor, *, group: dist.ProcessGroup, config: Config
) -> Tensor:
    """Attend to all earlier tokens of the window, wherever they are: [B, H, T / n, D / H]."""
    rank, size = group.rank(), group.size()
    mine = pieces(rank, config, q.device)
    out = q.new_zeros(())
    total: Tensor | None = None  # logsumexp of all scores so far: [B, H, T / n, 1]
    for turn in range(size):
        future = mine[:, None] < pieces((rank - turn) % size, config, q.device)
        # Keeps q, k and v alone; a kernel such as flash attention does the same by itself.
        values, part = checkpoint(
            attend_to_part, q, k, v, future, use_reentrant=False, preserve_rng_state=False
        )
        new = part if total is None else torch.logaddexp(total, part)
        old = 0 if total is None else (total - new).exp().to(v.dtype)
        out, total = out * old + values * (part - new).exp().to(v.dtype), new
        if turn < size - 1:
            k, v = PassOn.apply(torch.stack((k, v)), group)  # type: ignore[no-untyped-call]
    return out


def build_model(config: Config) -> GPT:
    """Build the whole model, equal for equal seeds."""
    model = GPT(model_config(config.size, tied=config.tied)).init_weights(config.seed)
    return model.to(master_dtype(config.precision))


def parallelize(model: GPT, mesh: DeviceMesh, config: Config) -> DistributedDataParallel:
    """Return the model as it trains on this rank: a copy, equal to rank 0's."""
    if config.attention == "ring":
        attend = functools.partial(ring_attention, group=mesh.get_group("cp"), config=config)
        for module in model.modules():
            if isinstance(module, Attention):
                module.attend = attend
    prepare_blocks(model.blocks.values(), config.recompute, config.compile)
    # Over all ranks: those that share a window too have the gradients of different tokens.
    return DistributedDataParallel(model, init_sync=False, gradient_as_bucket_view=True)


def cut(
    tokens: Tensor, targets: Tensor, mesh: DeviceMesh, config: Config
) -> tuple[contextlib.AbstractContextManager[None], list[Tensor]]:
    """Return this rank's part of windows [rows, T]: tokens, targets, positions; and a context."""
    cp = mesh["cp"]
    if config.attention == "ring":
        mine = pieces(cp.get_local_rank(), config, tokens.device)
        return contextlib.nullcontext(), [tokens[:, mine], targets[:, mine], mine]
    # Cuts these tensors in place, and puts a ring into scaled_dot_product_attention.
    positions = torch.arange(config.seq_len, device=tokens.device)
    parts = [tokens.clone(), targets.clone(), positions]
    return context_parallel(cp, buffers=parts, buffer_seq_dims=[1, 1, 0]), parts


def build_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """Return AdamW over what this rank holds; to be called after `parallelize`."""
    groups = decay_groups(model, config.weight_decay)
    return AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True)


def batch(step: int, windows: Windows) -> tuple[Tensor, Tensor]:
    """Return this rank's tokens and targets of a step: two of [accumulate, rows, T]."""
    tokens = windows[step]
    return tokens[..., :-1], tokens[..., 1:]


def loss(model: nn.Module, tokens: Tensor, targets: Tensor, positions: Tensor) -> Tensor:
    """Return the mean over the tokens of -log p(next byte), in nats: a scalar with a graph."""
    logits = model(tokens, positions)  # [rows, T / n, V]
    return cross_entropy(logits.flatten(0, 1), targets.flatten())


@torch.no_grad()
def evaluate(
    model: nn.Module, windows: Windows, mesh: DeviceMesh, config: Config, device: torch.device
) -> Tensor:
    """Return the mean loss over this rank's part of the first validation batches."""
    model.eval()
    total = torch.zeros((), device=device, dtype=torch.float64)
    passes = config.eval_batches * config.accumulate  # no more at once than in training
    for step in range(config.eval_batches):
        for tokens, targets in zip(*batch(step, windows), strict=True):
            context, parts = cut(tokens.to(device), targets.to(device), mesh, config)
            with context, autocast(config.precision, device):
                total += loss(model, *parts) / passes
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
                    context, parts = cut(tokens[micro], targets[micro], mesh, config)
                    with context:
                        with autocast(config.precision, device):  # entered anew: it caches casts
                            micro_loss = loss(model, *parts) / config.accumulate
                        scaler.scale(micro_loss).backward()
                step_loss += micro_loss.detach()
            seen = targets.numel() / mesh["cp"].size()  # each has a part of the window
            mean_loss = progress.agree(step, step_loss, seen, good=checkpoints.last_good)
            scaler.unscale_(optimizer)
            norm = optim.clip_grad_norm(model.parameters(), config.clip)
            progress.require_finite(step, norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            progress.log(step, loss=mean_loss, lr=rate, grad_norm=norm)
            if progress.evaluates(step + 1):
                progress.evaluated(step + 1, evaluate(model, validation, mesh, config, device))
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
