"""The loop that every GPT recipe must equal, by hand: torch, the given model, and nothing else.

No optimizer of torch's, no scheduler, no clipping function, no autograd hook: what is compared
shares with the recipes the model and the tokens alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class Curve(NamedTuple):
    """What a training run says of itself, step by step."""

    losses: list[float]
    norms: list[float]
    """Of all gradients together, before clipping."""


class Rates(NamedTuple):
    """The numbers of the loop."""

    lr: float
    warmup_steps: int
    steps: int
    min_lr: float
    clip: float
    weight_decay: float
    beta2: float
    gradient_scale: float = 1.0
    """What all gradients are multiplied by: 1, or the fault that a comparison must notice."""


def rate_of(step: int, rates: Rates) -> float:
    """Rise in a line, then fall along half a cosine to `min_lr` of the peak."""
    if step < rates.warmup_steps:
        return rates.lr * (step + 1) / rates.warmup_steps
    x = (step - rates.warmup_steps) / (rates.steps - rates.warmup_steps)
    low = rates.lr * rates.min_lr
    return low + (rates.lr - low) * 0.5 * (1 + math.cos(math.pi * x))


class AdamW:
    """AdamW as https://arxiv.org/abs/1711.05101 has it, algorithm 2; matrices alone decay."""

    def __init__(self, parameters: list[nn.Parameter], rates: Rates) -> None:
        self.parameters, self.rates, self.count = parameters, rates, 0
        self.means = [torch.zeros_like(p) for p in parameters]
        self.squares = [torch.zeros_like(p) for p in parameters]

    def step(self, grads: list[Tensor], rate: float) -> None:
        beta1, beta2, eps = 0.9, self.rates.beta2, 1e-8
        self.count += 1
        unbias1, unbias2 = 1 - beta1**self.count, 1 - beta2**self.count
        for p, grad, mean, square in zip(
            self.parameters, grads, self.means, self.squares, strict=True
        ):
            mean.copy_(beta1 * mean + (1 - beta1) * grad)
            square.copy_(beta2 * square + (1 - beta2) * grad * grad)
            if p.ndim >= 2:
                p.mul_(1 - rate * self.rates.weight_decay)
            p.sub_(rate * (mean / unbias1) / ((square / unbias2).sqrt() + eps))


def gpt_curve(
    model: nn.Module,
    batches: Iterable[Tensor],
    rates: Rates,
    added: Callable[[], Tensor | float] = float,
) -> Curve:
    """Train a GPT.

    Args:
        model: Its weights are changed.
        batches: Tokens of each step, [micro-batches, rows, T + 1].
        rates: The numbers.
        added: What is minimised beside cross-entropy, of the forward pass just made.
    """
    parameters = list(model.parameters())
    optimizer, curve = AdamW(parameters, rates), Curve([], [])
    for step, micro_batches in enumerate(batches):
        grads = [torch.zeros_like(p) for p in parameters]
        total = 0.0
        for tokens in micro_batches:
            logits = model(tokens[:, :-1])
            loss = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            total += loss.item() / len(micro_batches)
            loss = (loss + added()) / len(micro_batches)
            for grad, more in zip(grads, torch.autograd.grad(loss, parameters), strict=True):
                grad += more * rates.gradient_scale
        with torch.no_grad():
            norm = sum(grad.square().sum() for grad in grads).sqrt()
            if rates.clip:
                factor = min(1.0, rates.clip / (norm.item() + 1e-6))
                grads = [grad * factor for grad in grads]
            optimizer.step(grads, rate_of(step, rates))
        curve.losses.append(total)
        curve.norms.append(norm.item())
    return curve


def digits_curve(
    batches: list[tuple[Tensor, Tensor]], seed: int, lr: float, gradient_scale: float = 1.0
) -> Curve:
    """Train the digits' network of two layers by SGD with momentum 0.9, at a constant rate.

    Args:
        batches: Images [B, 8, 8] and labels [B] of each step.
        seed: Of the weights.
        lr: The rate.
        gradient_scale: As in `Rates`.
    """
    torch.manual_seed(seed)
    layers = [nn.Linear(64, 64), nn.Linear(64, 10)]
    layers = [layer.to(batches[0][0].dtype) for layer in layers]
    parameters = [p for layer in layers for p in layer.parameters()]
    velocities, curve = [torch.zeros_like(p) for p in parameters], Curve([], [])
    for images, labels in batches:
        logits = layers[1](layers[0](images.flatten(1)).clamp(min=0))
        loss = -logits.log_softmax(dim=1)[torch.arange(len(labels)), labels].mean()
        grads = [grad * gradient_scale for grad in torch.autograd.grad(loss, parameters)]
        with torch.no_grad():
            for p, grad, velocity in zip(parameters, grads, velocities, strict=True):
                velocity.copy_(0.9 * velocity + grad)
                p.sub_(lr * velocity)
        curve.losses.append(loss.item())
        curve.norms.append(sum(grad.square().sum() for grad in grads).sqrt().item())
    return curve
