"""The rate of a step is torch's own schedule; one norm is the norm of the whole, on any mesh."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    PolynomialLR,
)

from distrun.comm import World
from distrun.testing import run_ranks
from distrun.train.config import TrainConfig
from distrun.train.optim import clip_grad_norm, learning_rate
from distrun.train.precision import GradScaler

CONFIG = TrainConfig(lr=0.5, steps=50, warmup_steps=10, min_lr=0.1)


def rates_of_torch(make: type[LRScheduler], **settings: float) -> list[float]:
    """Return what a torch scheduler gives for the 40 steps after the warm-up."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = make(optimizer, **settings)
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        ("cosine", lambda: rates_of_torch(CosineAnnealingLR, T_max=40, eta_min=0.05)),
        (
            "linear",
            lambda: rates_of_torch(LinearLR, start_factor=1, end_factor=0.1, total_iters=40),
        ),
        ("exponential", lambda: rates_of_torch(ExponentialLR, gamma=0.1 ** (1 / 40))),
        ("constant", lambda: [0.5] * 40),
    ],
)
def test_the_rate_falls_as_torchs_scheduler_has_it(schedule: str, theirs: object) -> None:
    config = replace(CONFIG, schedule=schedule)
    ours = [learning_rate(step, config) for step in range(10, 50)]
    assert callable(theirs)
    assert ours == pytest.approx(theirs(), rel=1e-9)


def test_polynomial_is_torchs_of_power_two_when_it_ends_at_zero() -> None:
    config = replace(CONFIG, schedule="polynomial", min_lr=0.0)
    ours = [learning_rate(step, config) for step in range(10, 50)]
    assert ours == pytest.approx(rates_of_torch(PolynomialLR, total_iters=40, power=2), abs=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "polynomial", "exponential"])
def test_the_rate_rises_evenly_then_falls_and_never_leaves_its_ends(schedule: str) -> None:
    config = replace(CONFIG, schedule=schedule)
    rates = [learning_rate(step, config) for step in range(60)]
    assert rates[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert max(rates) == pytest.approx(0.5)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[50:] == pytest.approx([0.05] * 10)  # beyond the last step it stays


def test_without_a_warm_up_the_first_rate_is_the_peak() -> None:
    assert learning_rate(0, replace(CONFIG, warmup_steps=0)) == 0.5


SHAPES = {"whole": (3,), "rows": (8, 4), "both": (8, 8), "copies": (4,)}


def gradients() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in SHAPES.items()
    }


def clipped_on_meshes(world: World, max_norm: float) -> tuple[float, dict[str, torch.Tensor]]:
    """Clip gradients of which one is plain, one on a mesh, one on two axes, one a copy."""
    flat = init_device_mesh("cpu", (4,), mesh_dim_names=("ep",))
    square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("shard", "tp"))
    placed = {
        "rows": (flat, [Shard(0)]),
        "both": (square, [Shard(0), Shard(1)]),
        "copies": (square, [Replicate(), Shard(0)]),
    }
    parameters = {}
    for name, grad in gradients().items():
        if name in placed:
            mesh, places = placed[name]
            grad = distribute_tensor(grad, mesh, places)
        parameters[name] = nn.Parameter(torch.zeros_like(grad))
        parameters[name].grad = grad
    norm = clip_grad_norm(parameters.values(), max_norm)
    whole = {
        name: p.grad.full_tensor() if name in placed else p.grad for name, p in parameters.items()
    }
    return norm.item(), whole


@pytest.mark.usefixtures("warm_ranks")
@pytest.mark.parametrize("max_norm", [0.0, 1.0, 1e6])
def test_gradients_of_several_meshes_are_clipped_as_one(max_norm: float) -> None:
    expected = [nn.Parameter(torch.zeros_like(g)) for g in gradients().values()]
    for parameter, grad in zip(expected, gradients().values(), strict=True):
        parameter.grad = grad
    limit = max_norm or float("inf")
    norm = nn.utils.clip_grad_norm_(expected, limit).item()
    for found, whole in run_ranks(lambda w: clipped_on_meshes(w, max_norm), 4, backend="gloo"):
        assert found == pytest.approx(norm, rel=1e-12)
        for parameter, grad in zip(expected, whole.values(), strict=True):
            torch.testing.assert_close(grad, parameter.grad, rtol=1e-12, atol=0)


def clipped_in_stages(world: World) -> tuple[float, float]:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.full((2,), float(world.rank // 2 + 1))  # two ranks a stage
    norm = clip_grad_norm([parameter], 1.0, stages=2)
    return norm.item(), parameter.grad[0].item()


@pytest.mark.usefixtures("warm_ranks")
def test_the_norm_of_a_pipeline_is_that_of_all_its_stages() -> None:
    norm = (2 * 1 + 2 * 4) ** 0.5
    found = run_ranks(clipped_in_stages, 4, backend="gloo")
    assert [n for n, _ in found] == pytest.approx([norm] * 4)
    assert [g for _, g in found] == pytest.approx([1 / norm, 1 / norm, 2 / norm, 2 / norm], 1e-5)


def overflow_on_one_rank(world: World) -> tuple[float, float]:
    scaler = GradScaler("float16", torch.device("cpu"))
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    parameter.grad = torch.full((2,), float("inf") if world.rank == 1 else 1.0)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    return parameter[0].item(), scaler.get_scale()


@pytest.mark.usefixtures("warm_ranks")
def test_an_overflow_on_one_rank_skips_the_step_on_all() -> None:
    before = GradScaler("float16", torch.device("cpu"))
    assert run_ranks(overflow_on_one_rank, 3, backend="gloo") == [(1.0, before.get_scale() / 2)] * 3


def no_overflow(world: World) -> float:
    scaler = GradScaler("float16", torch.device("cpu"))
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    parameter.grad = torch.full((2,), scaler.get_scale())
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert dist.get_world_size() == world.world_size
    return parameter[0].item()


@pytest.mark.usefixtures("warm_ranks")
def test_without_an_overflow_all_step_with_unscaled_gradients() -> None:
    assert run_ranks(no_overflow, 2, backend="gloo") == [-1.0, -1.0]
