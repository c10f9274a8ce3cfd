"""A script with the five functions that `distrun estimate` asks for."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import mse_loss
from torch.optim import AdamW, Optimizer

WIDTH = 256


def build_model(layers: int = 12) -> nn.Module:
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)))


def parallelize(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    for layer in model.children():
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def batch(step: int) -> tuple[Tensor, Tensor]:
    return torch.randn(32, WIDTH, device="cuda"), torch.randn(32, WIDTH, device="cuda")


def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return mse_loss(model(x), y)


def build_optimizer(model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), lr=1e-3)
