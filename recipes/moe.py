"""Expert parallelism: a mixture of experts, each rank with some of them; tokens travel.

    distrun launch recipes/moe.py
    torchrun --nproc-per-node 4 recipes/moe.py --experts 8 --capacity-factor 1.25

Each block's feed-forward becomes E experts, of which a token uses two: the parameters of E,
the arithmetic of 2. A router chooses; an all_to_all brings every token to the rank of its
expert, and another brings the result back: 2 · 4 · B · T · D bytes a block and way (k = 2 copies).
Left alone, a router sends everything to few experts; the balancing loss E · sum(f_e · p_e) is least
when all fractions f_e are equal (https://arxiv.org/abs/2101.03961). With --capacity-factor C an
expert takes at most C · k · T / E tokens of a window; the rest is dropped, and counted.
The experts' gradients are whole where they are; all else is averaged by DDP. Memory: experts 1 / n.
To compare: distrun recipes diff ddp_gpt moe.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "numpy", "distrun"]
#
# [tool.distrun]
# strategy = "ep"
# nproc-per-node = 2
#
# [tool.distrun.verify]
# args = ["--warmup-steps", "5"]
#
# [tool.distrun.verify.layouts]
# "ep 2" = { ranks = 2 }
# "ep 4" = { ranks = 4 }
# "ep 2, 2 passes" = {ranks = 2, args = ["--accumulate=2", "--balance=0"], alone = ["--balance=0"]}
# ///

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
import torch.distributed as dist
from data import Shard, Windows, as_text, batches, open_text, require_text
from model import GPT, GPTConfig, decay_groups, model_config, prepare_blocks, sample
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor import Shard as Cut
from torch.nn.functional import cross_entropy, one_hot, silu
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW, Optimizer

from distrun.torch_private import functional_collectives as funcol
from distrun.torch_private import leave_out_of_ddp
from distrun.train import mesh as meshes
from distrun.train import optim
from distrun.train.checkpoint import Checkpoints
from distrun.train.config import ConfigError, TextConfig, option, parse
from distrun.train.precision import GradScaler, autocast, master_dtype
from distrun.train.progress import Progress
from distrun.train.setup import Place, shorten_timeout, start

CHOSEN = 2  # experts a token: k below


@dataclass(frozen=True)
class Config(TextConfig):
    """The settings; each is a flag."""

    experts: int = option(4, "a block", 2)
    capacity_factor: float = option(0.0, "tokens an expert takes, of its even part; 0: all", 0)
    balance: float = option(0.01, "weight of the balancing loss", 0)


def axes(config: Config, world_size: int) -> dict[str, int]:
    """Return the mesh: one axis, of ranks that see different data and have different experts."""
    meshes.require_divides("--experts", config.experts, world_size, "ranks")
    even = CHOSEN * config.seq_len / config.experts  # tokens of a window, if all take the same
    if 0 < config.capacity_factor * even < 1:
        raise ConfigError(
            f"--capacity-factor {config.capacity_factor:g} lets an expert take less than one token"
            f" of a window, so that none takes any: at least {1.01 / even:.3g}"
        )
    micro_batch = config.batch_size // config.accumulate
    meshes.require_divides("--batch-size", config.batch_size, config.accumulate, "micro-batches")
    meshes.require_divides("a micro-batch of", micro_batch, world_size, "ranks")
    return meshes.sizes(world_size, ep=-1)


class Experts(nn.Module):
    """E feed-forward networks behind a router, k = 2 for each token: [B, T, D] -> [B, T, D]."""

    def __init__(self, shape: GPTConfig, config: Config) -> None:
        super().__init__()
        count, dim, hidden = config.experts, shape.dim, shape.hidden // CHOSEN  # 2 halves
        self.count, self.capacity_factor, self.k = count, config.capacity_factor, CHOSEN
        self.router = nn.Linear(dim, count, bias=False)
        self.gate = nn.Parameter(torch.empty(count, dim, hidden))
        self.up = nn.Parameter(torch.empty(count, dim, hidden))
        self.down = nn.Parameter(torch.empty(count, hidden, dim))
        self.group: DeviceMesh | None = None  # set by parallelize
        self.balance = torch.zeros(())  # of the last forward pass
        self.dropped = torch.zeros(())  # places that were asked for in vain, likewise

    def forward(self, x: Tensor) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)  # half floats would tie
        chances = self.router(x).to(exact).softmax(dim=-1)  # [B, T, E]
        weights, chosen = chances.topk(self.k, dim=-1)  # both [B, T, k]
        weights = weights / weights.sum(dim=-1, keepdim=True)
        asked = one_hot(chosen.flatten(1), self.count)  # [B, T k, E]: which expert, by place
        kept = torch.ones_like(chosen, dtype=torch.bool).flatten(1)
        if self.capacity_factor:
            capacity = int(self.capacity_factor * self.k * x.shape[1] / self.count)
            before = (asked.cumsum(dim=1) * asked).sum(dim=-1)  # 1, 2, … in an expert's queue
            kept = before <= capacity
        self.dropped = (~kept).sum()
        self.balance = self.balancing_loss(chances, asked)
        places = kept.flatten().nonzero().flatten()  # [N]: of the B T k that were asked for
        expert = chosen.flatten()[places]
        order = expert.argsort(stable=True)  # a rank's experts stand together
        places, expert = places[order], expert[order]
        sent = x.flatten(0, 1)[places // self.k]  # [N, D]
        y = self.at_their_experts(sent, expert.bincount(minlength=self.count))
        y = y * weights.flatten()[places, None].to(y.dtype)
        out = torch.zeros_like(x.flatten(0, 1), dtype=y.dtype)
        return out.index_add(0, places // self.k, y).view(x.shape)

    def balancing_loss(self, chances: Tensor, asked: Tensor) -> Tensor:
        """Return E · sum(f_e · p_e): f_e of all ranks' places asked for e, p_e the mean chance."""
        # of a micro-batch: with --accumulate the mean of them is another loss
        fraction = asked.to(chances.dtype).mean(dim=(0, 1))  # [E], no gradient
        if self.group is not None:
            # The chances stay this rank's: DDP's mean over the ranks makes them everybody's.
            fraction = funcol.wait_tensor(funcol.all_reduce(fraction, "avg", self.group))
        return self.count * (fraction * chances.mean(dim=(0, 1))).sum()

    def at_their_experts(self, x: Tensor, counts: Tensor) -> Tensor:
        """Return each token [N, D], sorted by expert, as its expert makes it."""
        if self.group is None:
            return self.apply_experts(x, counts[None])
        ranks = self.group.size()
        here = funcol.wait_tensor(funcol.all_to_all_single(counts, None, None, self.group))
        ins = counts.unflatten(0, (ranks, -1)).sum(dim=1).tolist()
        by_rank = here.unflatten(0, (ranks, -1))  # [ranks, E / ranks]
        outs = by_rank.sum(dim=1).tolist()
        arrived = funcol.all_to_all_single_autograd(x, outs, ins, self.group)
        y = self.apply_experts(funcol.wait_tensor(arrived), by_rank)
        left = funcol.all_to_all_single_autograd(y, ins, outs, self.group)
        back: Tensor = funcol.wait_tensor(left)
        return back

    def apply_experts(self, x: Tensor, counts: Tensor) -> Tensor:
        """Apply own experts to x [N, D], sorted by source, then expert: counts [sources, own]."""
        gate, up, down = (
            w.to_local() if isinstance(w, DTensor) else w for w in (self.gate, self.up, self.down)
        )
        labels = torch.arange(counts.shape[1], device=x.device).repeat(counts.shape[0])
        order = labels.repeat_interleave(counts.flatten()).argsort(stable=True)
        parts = x[order].split(counts.sum(dim=0).tolist())
        done = [(silu(part @ gate[e]) * (part @ up[e])) @ down[e] for e, part in enumerate(parts)]
        return torch.cat(done)[order.argsort()]


def experts_of(model: nn.Module) -> list[Experts]:
    """Return the layers of experts of a model, wrapped or not."""
    return [module for module in model.modules() if isinstance(module, Experts)]


def build_model(config: Config) -> GPT:
    """Build the whole model, equal for equal seeds."""
    shape = model_config(config.size, tied=config.tied)
    model = GPT(shape)
    for block in model.blocks.values():
        block.feed_forward = Experts(shape, config)
    return model.init_weights(config.seed).to(master_dtype(config.precision))


def parallelize(model: GPT, mesh: DeviceMesh, config: Config) -> DistributedDataParallel:
    """Return the model as it trains on this rank: its experts, and a copy of the rest."""
    ep = mesh["ep"]
    ignored = []
    for name, layer in model.named_modules():
        if isinstance(layer, Experts):
            layer.group = ep
            for key in ("gate", "up", "down"):
                # [E, …] cut along E; every rank has drawn the same, so nothing is sent
                whole = getattr(layer, key).data
                own = nn.Parameter(distribute_tensor(whole, ep, [Cut(0)], src_data_rank=None))
                # It is the sum over all ranks' tokens already; the loss is their mean.
                own.register_hook(lambda grad: grad / ep.size())
                setattr(layer, key, own)
                ignored.append(f"{name}.{key}")
    prepare_blocks(model.blocks.values(), config.recompute, config.compile)
    leave_out_of_ddp(model, ignored)
    return DistributedDataParallel(model, process_group=mesh.get_group("ep"), init_sync=False)


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


def extras(model: nn.Module, config: Config) -> tuple[Tensor, Tensor]:
    """Return the weighted balancing loss of the last forward pass, and how many it dropped."""
    layers = experts_of(model)
    balance = config.balance * torch.stack([layer.balance for layer in layers]).mean()
    return balance, torch.stack([layer.dropped for layer in layers]).sum()


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
    shard = Shard(place.rank, place.world_size)
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
            step_loss, balances, drops = torch.zeros(3, device=device, dtype=torch.float64)
            for micro in range(config.accumulate):
                last = micro == config.accumulate - 1
                # One all_reduce a step: earlier micro-batches only add up, forward() included.
                with contextlib.nullcontext() if last else model.no_sync():
                    with autocast(config.precision, device):  # entered anew: it caches casts
                        micro_loss = loss(model, tokens[micro], targets[micro]) / config.accumulate
                        balance, dropped = extras(model, config)
                        balance = balance / config.accumulate
                    scaler.scale(micro_loss + balance).backward()
                step_loss += micro_loss.detach()
                balances += balance.detach() / place.world_size
                drops += dropped
            mean_loss = progress.agree(step, step_loss, targets.numel(), good=checkpoints.last_good)
            scaler.unscale_(optimizer)
            norm = optim.clip_grad_norm(model.parameters(), config.clip)
            progress.require_finite(step, norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            both = torch.stack((balances, drops))
            dist.all_reduce(both)
            more = dict(zip(("balance", "dropped"), both.tolist(), strict=True))
            progress.log(step, loss=mean_loss, lr=rate, grad_norm=norm, **more)
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
