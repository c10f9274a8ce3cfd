"""What is done to each layer of a model in the same way: recompute it, compile it."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

_KEPT = {  # dear to compute, and their results are small: matrix products and attention
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}


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
            contexts = {"context_fn": _selective} if recompute == "selective" else {}
            again = functools.partial(checkpoint, block.forward, use_reentrant=False, **contexts)
            block.forward = again  # type: ignore[method-assign]
        if compile_them:
            block.compile()


def _selective() -> Any:
    def policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        kept = op in _KEPT
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)
