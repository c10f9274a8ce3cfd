"""Formats and habits of known training systems, and of the recipes.

Each entry says in which formats a system keeps weights, gradients and optimizer, what its loop
holds, and how it wraps the model: what decides its memory beside the dimensions and the layout.
"""

from __future__ import annotations

from dataclasses import replace

from distrun.errors import UsageError, did_you_mean
from distrun.estimate.layout import Formats

_MEGATRON = Formats(
    weights=2,
    optimizer=12,
    logits=2,
    buffered=True,
    gathers_again=True,
    keeps_outputs=False,
    receives_all=False,
)
PRESETS: dict[str, tuple[str, Formats]] = {
    "fsdp": (
        "FSDP2 as in recipes/fsdp.py: float32 weights and AdamW, bfloat16 arithmetic",
        Formats(),
    ),
    "autocast": (
        "DDP or one GPU under torch.autocast, as in recipes/ddp_gpt.py",
        Formats(residual=4, autocast=True, logits=2),
    ),
    "float32": ("everything in float32", Formats(compute=4, residual=4)),
    "bfloat16": (
        "weights, gradients and AdamW in bfloat16, gradients reduced in float32",
        Formats(weights=2, gradients=2, optimizer=4, logits=2, loss=2, keeps_logits=True),
    ),
    "pure-bfloat16": (
        "the same, gradients reduced in bfloat16 too, loss in float32",
        Formats(weights=2, gradients=2, reduce=2, optimizer=4, logits=2),
    ),
    "torchtitan": (
        "torchtitan's Llama: float32 weights, loss in float32, the embedding a unit of its own",
        Formats(logits=2, expands_keys=True, embedding_apart=True),
    ),
    "torchtune": (
        "torchtune: everything in bfloat16, loss in float32, norms by hand",
        Formats(
            weights=2,
            gradients=2,
            reduce=2,
            optimizer=4,
            logits=2,
            expands_keys=True,
            norms_by_hand=True,
        ),
    ),
    "kempnerforge": (
        "bfloat16 weights and AdamW, loss in bfloat16, the embedding whole under TP",
        Formats(
            weights=2,
            gradients=2,
            optimizer=4,
            logits=2,
            loss=2,
            keeps_logits=True,
            root_stays=False,
            embedding_cut=False,
            loss_parallel=False,
            doubles_gradients=True,  # so two of three published rows; the third, 1.5 times
        ),
    ),
    "llm-foundry": (
        "Composer's FSDP: float32 weights, gradients reduced in each micro-batch",
        Formats(logits=2, syncs_always=True, keeps_logits=True),
    ),
    "megatron": (
        "Megatron-LM: bfloat16 weights, float32 gradients in one buffer, float32 master weights",
        _MEGATRON,
    ),
    "nanotron": (
        "bfloat16 weights, float32 gradients and master weights, stages of equal cost",
        replace(
            _MEGATRON,
            gathers_again=False,
            by_cost=True,
            loss_in_place=True,
            other_nbytes=(1690 << 20, 2860 << 20),  # fitted on four published rows
        ),
    ),
    "megatron-2022": (
        "Megatron-LM without flash attention and with dropout, as in arXiv 2205.05198",
        replace(_MEGATRON, flash=False, dropout=True),
    ),
}


def preset(name: str, *, compiled: bool = False) -> Formats:
    """Return the formats of a preset.

    Raises:
        UsageError: There is none of this name.
    """
    if name not in PRESETS:
        raise UsageError(f"--preset {name!r} is not known", did_you_mean(name, PRESETS))
    return replace(PRESETS[name][1], compiled=compiled)


def of_recipe(precision: str, *, sharded: bool, bucket_views: bool, compiled: bool) -> Formats:
    """Return the formats of a recipe.

    Args:
        precision: Its `--precision`.
        sharded: Whether FSDP casts; else autocast does.
        bucket_views: Whether gradients are views of DDP's buckets.
        compiled: Its `--compile`.
    """
    if precision == "float64":
        found = Formats(
            weights=8,
            compute=8,
            residual=8,
            gradients=8,
            reduce=8,
            optimizer=16,
            logits=8,
            loss=8,
        )
    elif precision == "float32":
        found = PRESETS["float32"][1]
    else:
        found = PRESETS["fsdp" if sharded else "autocast"][1]
    own = replace(found, agrees=True, copies_heads=True)
    return replace(own, compiled=compiled, bucket_views=bucket_views)
