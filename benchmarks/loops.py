"""Training loops as others write them, to be timed against a recipe's: one step at a `next()`.

All train the recipes' GPT with fused AdamW, two decay groups, clipping, warm-up and cosine, on
the same number of random windows of real text, and average and print the loss every 10 steps.
Beyond that a loop does nothing: no look for NaN, no signals, no numbers of each step.
"""

from __future__ import annotations

import math
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator, DataLoaderConfiguration
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from model import GPT, model_config
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from distrun.train.config import TextConfig

Loop = Callable[[str, TextConfig], Iterator[None]]


class Text(Dataset[Tensor]):
    """Windows of the standard library's source: [T + 1]."""

    def __init__(self, seq_len: int) -> None:
        files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
        self.bytes = np.frombuffer(b"".join(file.read_bytes() for file in files), np.uint8)
        self.seq_len = seq_len

    def __len__(self) -> int:
        return len(self.bytes) - self.seq_len

    def __getitem__(self, start: int) -> Tensor:
        window = self.bytes[start : start + self.seq_len + 1]
        return torch.from_numpy(window.astype(np.int64))


def new_model(config: TextConfig) -> GPT:
    return GPT(model_config(config.size)).init_weights(config.seed)


def sharded(model: nn.Module) -> nn.Module:
    assert isinstance(model, GPT)
    for block in model.blocks.values():
        fully_shard(block)
    fully_shard(model)
    return model


def adamw(model: nn.Module, config: TextConfig) -> tuple[Optimizer, LambdaLR]:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True)

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        x = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        return config.min_lr + (1 - config.min_lr) * (1 + math.cos(math.pi * x)) / 2

    return optimizer, LambdaLR(optimizer, factor)


def loss_of(model: nn.Module, windows: Tensor) -> Tensor:
    logits = model(windows[:, :-1])
    return cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def bare(strategy: str, config: TextConfig) -> Iterator[None]:
    """Train with nothing but torch, as nanoGPT does."""
    text = Text(config.seq_len)
    dice = torch.Generator().manual_seed(dist.get_rank())
    model: nn.Module = new_model(config)
    if strategy == "ddp":
        model = DistributedDataParallel(model, gradient_as_bucket_view=True)
    else:
        sharded(model)
    optimizer, scheduler = adamw(model, config)
    rows = config.batch_size // dist.get_world_size()
    for step in range(config.steps):
        starts = torch.randint(len(text), (rows,), generator=dice).tolist()
        loss = loss_of(model, torch.stack([text[start] for start in starts]))
        loss.backward()
        clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if step % config.log_every == 0:
            mean = loss.detach() / dist.get_world_size()
            dist.all_reduce(mean)
            if dist.get_rank() == 0:
                print(f"bare {strategy}: step {step} loss {mean.item():.4f}", flush=True)
        yield


def accelerate(strategy: str, config: TextConfig) -> Iterator[None]:
    """Train with Accelerate, which shards on no CPU: there the model is sharded by hand."""
    accelerator = Accelerator(
        cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True)
    )
    loader: Any = DataLoader(Text(config.seq_len), batch_size=config.batch_size, shuffle=True)
    model = new_model(config)
    prepared = accelerator.prepare(model) if strategy == "ddp" else sharded(model)
    optimizer, scheduler, loader = accelerator.prepare(*adamw(prepared, config), loader)
    for step, windows in zip(range(config.steps), loader, strict=False):
        loss = loss_of(prepared, windows)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(prepared.parameters(), config.clip)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if step % config.log_every == 0:
            mean = accelerator.reduce(loss.detach(), reduction="mean")
            accelerator.print(f"accelerate {strategy}: step {step} loss {mean.item():.4f}")
        yield


def fabric(strategy: str, config: TextConfig) -> Iterator[None]:
    """Train with Lightning Fabric."""
    ranks = dist.get_world_size()
    shard = ModelParallelStrategy(lambda model, mesh: sharded(model), ranks, 1)
    how = "ddp" if strategy == "ddp" else shard
    fabric: Any = Fabric(accelerator="cpu", devices=ranks, strategy=how)
    fabric.launch()
    rows = config.batch_size // ranks
    loader: Any = DataLoader(Text(config.seq_len), batch_size=rows, shuffle=True)
    loader = fabric.setup_dataloaders(loader)
    model = fabric.setup(new_model(config))
    plain, scheduler = adamw(model, config)
    optimizer: Any = fabric.setup_optimizers(plain)
    for step, windows in zip(range(config.steps), loader, strict=False):
        loss = loss_of(model, windows)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=config.clip)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if step % config.log_every == 0:
            mean = fabric.all_reduce(loss.detach())
            fabric.print(f"fabric {strategy}: step {step} loss {mean.item():.4f}", flush=True)
        yield


LOOPS: dict[str, Loop] = {"bare torch": bare, "Accelerate": accelerate, "Lightning Fabric": fabric}
