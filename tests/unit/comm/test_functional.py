"""Gradients through collectives, against finite differences over all ranks' inputs at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from distrun.comm import CommUsageError, World
from distrun.comm import functional as f
from distrun.testing import run_ranks

RankFunction = Callable[[Tensor, World], Tensor]
N = 3

CASES: dict[str, RankFunction] = {
    "all_reduce sum": lambda x, w: f.all_reduce(x, w),
    "all_reduce mean": lambda x, w: f.all_reduce(x, w, "mean"),
    "all_reduce prod": lambda x, w: f.all_reduce(x, w, "prod"),
    "all_reduce max": lambda x, w: f.all_reduce(x, w, "max"),
    "all_reduce min": lambda x, w: f.all_reduce(x, w, "min"),
    "reduce": lambda x, w: f.reduce(x, w, dst=1),
    "reduce mean": lambda x, w: f.reduce(x, w, dst=2, op="mean"),
    "broadcast": lambda x, w: f.broadcast(x, w, src=1),
    "all_gather": lambda x, w: f.all_gather(x, w, dim=-1),
    "all_gather of uneven parts": lambda x, w: f.all_gather(x[: w.rank], w),
    "reduce_scatter": lambda x, w: f.reduce_scatter(x, w, dim=1),
    "reduce_scatter uneven, mean": lambda x, w: f.reduce_scatter(
        x, w, dim=1, op="mean", sizes=[1, 0, 2]
    ),
    "all_to_all": lambda x, w: f.all_to_all(x, w, dim=1),
    "all_to_all uneven": lambda x, w: f.all_to_all(
        x, w, dim=1, sizes=[1, w.rank % 2, 2 - w.rank % 2]
    ),
    "gather": lambda x, w: f.gather(x, w, dst=1, dim=1),
    "scatter": lambda x, w: f.scatter(x if w.rank == 1 else None, w, src=1, dim=1),
    "a strided input": lambda x, w: f.all_reduce(x.t()[::2], w),
    "one after another": lambda x, w: f.all_gather(f.all_reduce(x, w).tanh(), w) ** 2,
}


def as_one_function(fn: RankFunction) -> Callable[..., Any]:
    """Make of fn on N ranks one differentiable function of N inputs, as gradcheck wants it."""

    class OverRanks(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Any:
            ctx.save_for_backward(*inputs)
            return tuple(run_ranks(lambda w: fn(inputs[w.rank], w).detach(), N))

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            def one(world: World) -> Tensor:
                x = ctx.saved_tensors[world.rank].detach().clone().requires_grad_()
                fn(x, world).backward(grads[world.rank])
                return torch.zeros_like(x) if x.grad is None else x.grad

            return tuple(run_ranks(one, N))

    return OverRanks.apply


@pytest.mark.parametrize("case", CASES)
def test_a_gradient_is_that_of_the_sum_of_all_ranks_losses(case: str) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(N)]
    assert torch.autograd.gradcheck(as_one_function(CASES[case]), inputs)


def test_ranks_that_hold_the_same_maximum_share_its_gradient() -> None:
    def fn(world: World) -> Tensor:
        x = torch.tensor([1.0, float(world.rank)], requires_grad=True)
        f.all_reduce(x, world, "max").sum().backward()
        return x.grad

    grads = run_ranks(fn, 2)
    assert [g.tolist() for g in grads] == [[1.0, 0.0], [1.0, 2.0]]


def test_a_rank_whose_input_needs_no_gradient_takes_part_in_backward() -> None:
    def fn(world: World) -> Any:
        x = torch.ones(2, requires_grad=world.rank == 0)
        f.broadcast(x, world).sum().backward()
        return x.grad

    first, second = run_ranks(fn, 2)
    assert first.tolist() == [2.0, 2.0]
    assert second is None


def test_a_gradient_can_be_differentiated_again() -> None:
    def fn(world: World) -> float:
        x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        (grad,) = torch.autograd.grad(f.all_reduce(x**3, world), x, create_graph=True)
        (second,) = torch.autograd.grad(grad, x)
        return second.item()

    # Both ranks' losses are x₀³ + x₁³, so the gradient is 2 · 3 x², and its own is 2 · 6 x.
    assert run_ranks(fn, 2) == [24.0, 24.0]


@pytest.mark.parametrize("op", ["band", "mode"])
def test_a_reduction_without_a_gradient_is_refused(op: str) -> None:
    def fn(world: World) -> None:
        with pytest.raises(CommUsageError, match=op):
            f.all_reduce(torch.ones(1), world, op)
        with pytest.raises(CommUsageError, match="max"):
            f.reduce_scatter(torch.ones(2), world, op="max")

    run_ranks(fn, 2)


@pytest.mark.usefixtures("warm_ranks")
def test_gradients_are_the_same_in_processes() -> None:
    def fn(world: World) -> list[list[float]]:
        found = []
        for case, function in CASES.items():
            if case == "all_gather of uneven parts":
                continue
            torch.manual_seed(world.rank)
            x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
            y = function(x, world)
            y.backward(torch.ones_like(y))
            found.append([] if x.grad is None else x.grad.view(-1).tolist())
        return found

    for threads, processes in zip(run_ranks(fn, N), run_ranks(fn, N, "gloo"), strict=True):
        for a, b in zip(threads, processes, strict=True):
            assert a == pytest.approx(b, rel=1e-12)
