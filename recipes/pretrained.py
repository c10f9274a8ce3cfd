"""Two families of published models in one: GPT-2's blocks, and Llama's, for finetune.py.

    GPT-2   learned positions, LayerNorm, GELU, biases, embedding and head in one
    Llama   rotary positions, RMSNorm, SwiGLU, fewer heads of keys and values (GQA)

A parameter has the same name in both. Shapes: B windows, T tokens of each, D the width of the
model, H heads of h numbers for queries, K of them for keys and values, V words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from model import rotate
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention, silu

Turn = tuple[Tensor, Tensor]
"""Cosine and sine of each position's angles: two of [T, h / 2]."""


@dataclass(frozen=True)
class RotaryScaling:
    """How Llama 3.1 reaches windows longer than those of its training."""

    factor: float
    low: float
    high: float
    trained_positions: int


@dataclass(frozen=True)
class PretrainedConfig:
    """The shape of a model."""

    family: str
    """"gpt2" or "llama"."""
    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocab_size: int
    max_positions: int
    """The longest window; 0: not known."""
    norm_eps: float
    tied: bool
    """The embedding is the head too."""
    qkv_bias: bool
    bias: bool
    """Of the other matrices."""
    theta: float = 10000.0
    scaling: RotaryScaling | None = None

    def flops_per_token(self, seq_len: int, parameters: int) -> int:
        """Return the arithmetic of forward and backward for one token, as model.py counts it."""
        lookup = 0 if self.tied else self.vocab_size * self.dim
        attention = 12 * self.layers * self.heads * self.head_dim * seq_len
        return 6 * (parameters - lookup) + attention


SMALL = PretrainedConfig(
    *("llama", 4, 64, 8, 2, 8, 192, 256, 0, 1e-5), tied=False, qkv_bias=False, bias=False
)
"""For a try without published weights: 0.2 M parameters, a vocabulary of bytes."""


def angles(config: PretrainedConfig, length: int, device: torch.device, exact: torch.dtype) -> Turn:
    """Return cosine and sine of each position's angles."""
    i = torch.arange(0, config.head_dim, 2, device=device, dtype=exact)
    frequency = config.theta ** (-i / config.head_dim)  # [h / 2]
    if (by := config.scaling) is not None:
        # Waves that turn fewer than `low` times in the trained window get `factor` times as long,
        # those that turn more than `high` times stay, and between them it goes in a line.
        turns = by.trained_positions * frequency / (2 * math.pi)
        kept = ((turns - by.low) / (by.high - by.low)).clamp(0, 1)
        frequency = frequency * (kept + (1 - kept) / by.factor)
    positions = torch.arange(length, device=device, dtype=exact)
    turned = torch.outer(positions, frequency)
    return turned.cos(), turned.sin()


def norm(config: PretrainedConfig) -> nn.Module:
    """Return the norm of the family."""
    kind = nn.LayerNorm if config.family == "gpt2" else nn.RMSNorm
    return kind(config.dim, eps=config.norm_eps)


class Attention(nn.Module):
    """Causal self-attention with H heads, H / K of which share keys and values."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.shared = config.kv_heads < config.heads
        wide, narrow = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q = nn.Linear(config.dim, wide, bias=config.qkv_bias)
        self.k = nn.Linear(config.dim, narrow, bias=config.qkv_bias)
        self.v = nn.Linear(config.dim, narrow, bias=config.qkv_bias)
        self.out = nn.Linear(wide, config.dim, bias=config.bias)

    def forward(self, x: Tensor, turn: Turn | None) -> Tensor:
        q, k, v = (  # [B, H, T, h], [B, K, T, h], [B, K, T, h]
            part(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        if turn is not None:
            q, k = rotate(q, *turn), rotate(k, *turn)
        y = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.shared)
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """GPT-2's two matrices with GELU, or Llama's three with SwiGLU: [B, T, D] -> [B, T, D]."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.gate = None
        if config.family == "llama":
            self.gate = nn.Linear(config.dim, config.hidden, bias=config.bias)
        self.up = nn.Linear(config.dim, config.hidden, bias=config.bias)
        self.down = nn.Linear(config.hidden, config.dim, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)  # [B, T, hidden]
        h = gelu(h, approximate="tanh") if self.gate is None else silu(self.gate(x)) * h
        return self.down(h)  # type: ignore[no-any-return]


class Block(nn.Module):
    """One layer: attention and feed-forward, each behind a norm and beside a residual path."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.attention_norm = norm(config)
        self.attention = Attention(config)
        self.feed_forward_norm = norm(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, turn: Turn | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), turn)
        return x + self.feed_forward(self.feed_forward_norm(x))  # type: ignore[no-any-return]


class Pretrained(nn.Module):
    """Tokens [B, T] to logits [B, T, V]. There is no dropout, whatever the file asks for."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.dim)
        self.positions = None
        if config.family == "gpt2":
            self.positions = nn.Embedding(config.max_positions, config.dim)
        self.blocks = nn.ModuleDict({str(i): Block(config) for i in range(config.layers)})
        self.norm = norm(config)
        self.head = None
        if not config.tied:
            self.head = nn.Linear(config.dim, config.vocab_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)  # [B, T] -> [B, T, D]
        turn = None
        if self.positions is not None:
            h = h + self.positions(torch.arange(x.shape[1], device=x.device))  # [T, D]
        else:
            exact = torch.float64 if h.dtype == torch.float64 else torch.float32
            turn = angles(self.config, x.shape[1], x.device, exact)
        for block in self.blocks.values():
            h = block(h, turn)
        h = self.norm(h)
        weight = self.embed.weight if self.head is None else self.head.weight
        return linear(h, weight)  # [B, T, V]


class LoRALinear(nn.Linear):
    """A frozen matrix W and what is trained beside it, B · A of rank r: x -> x (W + s · B · A)^T.

    https://arxiv.org/abs/2106.09685. Of a matrix of D x D it trains 2 · r · D numbers: at D = 4096
    and r = 8, 65 k of 16.8 M. B starts at zero, so the first step has the published losses.
    """

    def __init__(self, plain: nn.Linear, rank: int, scale: float) -> None:
        nn.Module.__init__(self)  # no weight of its own is drawn
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight, self.bias, self.scale = plain.weight, plain.bias, scale
        self.lora_a = nn.Parameter(plain.weight.new_zeros(rank, plain.in_features))
        self.lora_b = nn.Parameter(plain.weight.new_zeros(plain.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        beside = linear(linear(x, self.lora_a), self.lora_b)  # [.., D] -> [.., r] -> [.., out]
        return super().forward(x) + self.scale * beside


def add_lora(model: Pretrained, rank: int, scale: float, everywhere: bool) -> None:
    """Freeze a model, and put matrices to train beside those of attention, or all of the blocks.

    No name of a parameter changes: a checkpoint and the published names fit as before.
    """
    model.requires_grad_(False)
    changed = (Attention, FeedForward) if everywhere else (Attention,)
    for part in [module for module in model.modules() if isinstance(module, changed)]:
        for name, plain in [*part.named_children()]:
            if isinstance(plain, nn.Linear):
                setattr(part, name, LoRALinear(plain, rank, scale))
