"""A GPT as it is built today: RMSNorm, rotary positions, causal attention, SwiGLU.

Plain torch.nn; no recipe's parallelism is in here. Shapes: B windows, T tokens of each, D the
width of the model, H heads of D / H numbers, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.nn.functional import silu
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a model."""

    layers: int
    dim: int
    heads: int
    hidden: int
    """Of SwiGLU, which has three matrices: 8/3 · D makes as many parameters as 4 · D with two."""
    vocab_size: int = 256  # bytes
    tied: bool = False

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        block = 4 * self.dim**2 + 3 * self.dim * self.hidden + 2 * self.dim
        embeddings = self.vocab_size * self.dim * (1 if self.tied else 2)
        return self.layers * block + self.dim + embeddings

    def flops_per_token(self, seq_len: int) -> int:
        """Return the arithmetic of forward and backward for one token.

        6 FLOPs a parameter (2 forward, 4 backward), without the embedding, which is looked up;
        12 · layers · D · T for attention (PaLM, https://arxiv.org/abs/2204.02311, appendix B).
        """
        lookup = 0 if self.tied else self.vocab_size * self.dim
        return 6 * (self.parameters - lookup) + 12 * self.layers * self.dim * seq_len


SIZES = {
    "tiny": GPTConfig(layers=4, dim=64, heads=4, hidden=192),  # 0.25 M: a laptop, the tests
    "small": GPTConfig(layers=6, dim=256, heads=8, hidden=704),  # 5 M: minutes on a CPU
    "124M": GPTConfig(layers=12, dim=768, heads=12, hidden=2048, vocab_size=50304, tied=True),
    "350M": GPTConfig(layers=24, dim=1024, heads=16, hidden=2752, vocab_size=50304, tied=True),
    "774M": GPTConfig(layers=36, dim=1280, heads=20, hidden=3456, vocab_size=50304, tied=True),
    "1.5B": GPTConfig(layers=48, dim=1600, heads=25, hidden=4288, vocab_size=50304, tied=True),
    "8B": GPTConfig(layers=32, dim=4096, heads=32, hidden=14336, vocab_size=128256),
}


def model_config(size: str, *, tied: bool | None = None) -> GPTConfig:
    """Return the shape that a size names, tied as it says or as asked; ValueError lists them."""
    if size not in SIZES:
        raise ValueError(f"--size {size!r} is none of {', '.join(SIZES)}")
    return SIZES[size] if tied is None else replace(SIZES[size], tied=tied)


def rotary(positions: Tensor, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of each position's angles: [T] -> two of [T, head_dim / 2].

    Pair i of a head turns by position · 10000^(-2i / head_dim), so that q · k depends on how
    far apart two tokens are (https://arxiv.org/abs/2104.09864).
    """
    # computed anew in each pass: no buffer that a meta device or a checkpoint could lose
    exponent = torch.arange(0, head_dim, 2, device=positions.device, dtype=dtype) / head_dim
    angles = torch.outer(positions.to(dtype), 10000.0**-exponent)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + half) of each head: [B, H, T, D/H] -> the same shape."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend to what came before: three of [B, H, T, D/H] -> [B, H, T, D/H]."""
    # by its module: context_parallel puts a ring into that name
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


class Attention(nn.Module):
    """Causal self-attention: [B, T, D] -> [B, T, D]; 4 D² parameters."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.head_dim = config.dim // config.heads
        self.q = nn.Linear(config.dim, config.dim, bias=False)
        self.k = nn.Linear(config.dim, config.dim, bias=False)
        self.v = nn.Linear(config.dim, config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)
        self.attend: Callable[[Tensor, Tensor, Tensor], Tensor] = causal_attention

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        # -1 and not H: under tensor parallelism each rank has some of the heads
        q, k, v = (
            linear(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [B, H, T, D/H]
            for linear in (self.q, self.k, self.v)
        )
        y = self.attend(rotate(q, cos, sin), rotate(k, cos, sin), v)
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """SwiGLU (https://arxiv.org/abs/2002.05202): [B, T, D] -> [B, T, D]; 3 · D · hidden."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.dim, config.hidden, bias=False)
        self.up = nn.Linear(config.dim, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(silu(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One layer: attention and feed-forward, each behind a norm and beside a residual path."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, eps=1e-5)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.dim, eps=1e-5)
        self.feed_forward: nn.Module = FeedForward(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.feed_forward(self.feed_forward_norm(x))  # type: ignore[no-any-return]


class GPT(nn.Module):
    """Tokens [B, T] to logits [B, T, V]. A pipeline stage is the same with parts left out."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embed: nn.Embedding | None = nn.Embedding(config.vocab_size, config.dim)
        # By name and not in a list: a stage that has layers 2 and 3 calls them 2 and 3.
        self.blocks = nn.ModuleDict({str(i): Block(config) for i in range(config.layers)})
        self.norm: nn.RMSNorm | None = nn.RMSNorm(config.dim, eps=1e-5)
        self.head: nn.Linear | None = nn.Linear(config.dim, config.vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.embed.weight

    def init_weights(self, seed: int) -> GPT:
        """Draw the weights; equal seeds give equal weights, on any number of ranks.

        N(0, 0.02), and less where a layer adds to the residual path, which 2 · layers do
        (GPT-2). On the CPU: a GPU draws other numbers from the same seed.
        """
        generator = torch.Generator().manual_seed(seed)
        small = 0.02 / (2 * self.config.layers) ** 0.5
        for name, parameter in self.named_parameters():  # tied weights come once
            if parameter.ndim < 2:
                nn.init.ones_(parameter)
                continue
            std = small if name.endswith(("out.weight", "down.weight", "down")) else 0.02
            nn.init.normal_(parameter, std=std, generator=generator)
        return self

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)
        h = self.embed(x) if self.embed is not None else x  # [B, T] -> [B, T, D]
        head_dim = self.config.dim // self.config.heads
        exact = torch.float64 if h.dtype == torch.float64 else torch.float32
        cos, sin = rotary(positions, head_dim, exact)
        for block in self.blocks.values():
            h = block(h, cos, sin)
        h = self.norm(h) if self.norm is not None else h
        return self.head(h) if self.head is not None else h  # [B, T, V]


def prepare_blocks(blocks: Iterable[nn.Module], recompute: str, compile_them: bool) -> None:
    """Recompute and compile each block, in place: no name of a parameter changes.

    To be done after tensor parallelism and before DDP or FSDP. Stands on
    `torch.utils.checkpoint` and `nn.Module.compile`.

    Args:
        blocks: The layers.
        recompute: "none" keeps all activations for backward; "full" keeps the input of each
            block alone, and pays one more forward pass; "selective" keeps matrix products too.
        compile_them: Each block by itself: one graph, compiled once and used by all of them.
    """
    for block in blocks:
        if recompute != "none":
            kept: dict[str, Any] = {"context_fn": _selective} if recompute == "selective" else {}
            block.forward = _recomputed(block.forward, kept)
        if compile_them:
            block.compile()


def _recomputed(forward: Callable[..., Any], kept: dict[str, Any]) -> Callable[..., Any]:
    """Return a forward that checkpoints; a function, for `compile` sees no frame of a partial."""

    def again(*args: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kept)

    return again


def _selective() -> Any:
    """Keep what is dear to compute, matrix products and attention; compute the rest anew."""

    def policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        kept = any(word in str(op) for word in ("mm.", "scaled_dot_product"))
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the parameter groups of AdamW: matrices decay, vectors (norms, biases) do not."""
    groups: dict[object, dict[str, Any]] = {}
    for p in model.parameters():
        if not p.requires_grad:
            continue  # frozen: no averages to keep
        # by mesh too: fused kernels take no mixture
        key = (p.ndim >= 2, p.device_mesh if isinstance(p, DTensor) else None)
        decay = weight_decay if p.ndim >= 2 else 0.0
        groups.setdefault(key, {"params": [], "weight_decay": decay})["params"].append(p)
    return list(groups.values())


@torch.no_grad()
def sample(
    forward: Callable[[Tensor], Tensor], prompt: Tensor, count: int, window: int, seed: int
) -> Tensor:
    """Write `count` tokens after a prompt [T], one by one; equal prompts, equal text on all ranks.

    Args:
        forward: Tokens [1, T] to logits [1, T, V].
        prompt: At least one token.
        count: How many to add.
        window: How far back the model looks.
        seed: Of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = prompt
    for _ in range(count):
        seen = tokens[-window:]
        # always [1, window], which every parallelism can cut; what stands behind is not seen
        padded = nn.functional.pad(seen, (0, window - len(seen)))
        logits = forward(padded[None])[0, len(seen) - 1]  # [V]
        chances = (logits.float().cpu() / 0.8).softmax(dim=-1)
        drawn = torch.multinomial(chances, 1, generator=generator).to(tokens.device)
        tokens = torch.cat((tokens, drawn))
    return tokens
