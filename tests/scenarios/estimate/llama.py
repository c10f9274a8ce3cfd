"""Llama 3 8B as KempnerForge and torchtitan train it: a loop of its own, for published rows.

KempnerForge: bfloat16 weights and AdamW, all blocks recomputed, the loop holds the logits.
torchtitan: float32 weights, every second product recomputed, the embedding a unit of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

sys.path.insert(0, str(Path(__file__).parents[3] / "recipes"))
from model import GPT, GPTConfig, prepare_blocks

parser = argparse.ArgumentParser()
parser.add_argument("--layers", type=int, default=32)
parser.add_argument("--like", choices=("kempnerforge", "torchtitan"), default="kempnerforge")
for flag in ("--shard", "--tp", "--rows", "--accumulate", "--seq-len"):
    parser.add_argument(flag, type=int, default=1)
flags = parser.parse_args()
kempner = flags.like == "kempnerforge"


def grouped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with 4 queries to a key; both expand the keys first."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=True)


class Alternate:
    """torchtitan's selective recomputation: attention is kept, and every second product."""

    def __init__(self) -> None:
        self.products: Counter[bool] = Counter()

    def keeps(self, context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        kept = "scaled_dot_product" in str(op)
        if "mm." in str(op):
            self.products[context.is_recompute] += 1
            kept = self.products[context.is_recompute] % 2 == 1
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def build() -> GPT:
    with torch.device("meta"):
        model = GPT(GPTConfig(flags.layers, 4096, 32, 14336, 128256))
        for block in model.blocks.values():
            block.attention.k = nn.Linear(4096, 1024, bias=False)
            block.attention.v = nn.Linear(4096, 1024, bias=False)
            block.attention.attend = grouped
    return model.to(torch.bfloat16) if kempner else model


def cut(model: GPT, tp: Any) -> None:
    whole, rows = Replicate(), Shard(1)
    ends: dict[str, Any] = {"norm": SequenceParallel()}
    ends["head"] = ColwiseParallel(input_layouts=rows, output_layouts=whole)
    ends["embed"] = _Cut()
    plan: dict[str, Any] = {
        "attention": PrepareModuleInput(
            input_layouts=(rows, None, None), desired_input_layouts=(whole, None, None)
        ),
        "feed_forward": PrepareModuleInput(input_layouts=(rows,), desired_input_layouts=(whole,)),
    }
    plan |= {n: SequenceParallel() for n in ("attention_norm", "feed_forward_norm")}
    plan |= {f"attention.{n}": ColwiseParallel() for n in "qkv"}
    plan |= {f"feed_forward.{n}": ColwiseParallel() for n in ("gate", "up")}
    plan |= {
        n: RowwiseParallel(output_layouts=rows) for n in ("attention.out", "feed_forward.down")
    }
    parallelize_module(model, tp, ends)
    for block in model.blocks.values():
        parallelize_module(block, tp, plan)


class _Cut(SequenceParallel):
    """The embedding is whole on each rank; what it gives is cut along the sequence."""

    def __init__(self) -> None:
        super().__init__(sequence_dim=1, use_local_output=False)

    def _apply(self, module: nn.Module, mesh: Any) -> nn.Module:
        module.weight = nn.Parameter(DTensor.from_local(module.weight, mesh, [Replicate()]))
        module.register_forward_pre_hook(
            lambda m, inputs: (DTensor.from_local(inputs[0], mesh, [Replicate()]),)
        )
        module.register_forward_hook(
            lambda m, inputs, out: out.redistribute(mesh, [Shard(1)]).to_local()
        )
        return module


dist.init_process_group("nccl")
mesh = init_device_mesh("cuda", (flags.shard, flags.tp), mesh_dim_names=("shard", "tp"))
model = build()
if flags.tp > 1:
    cut(model, mesh["tp"])
blocks = list(model.blocks.values())
if kempner:
    prepare_blocks(blocks, "full", False)
else:
    for block in blocks:
        block.forward = partial(
            checkpoint,
            block.forward,
            use_reentrant=False,
            context_fn=lambda: create_selective_checkpoint_contexts(Alternate().keeps),
        )
policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
shard = partial(fully_shard, mesh=mesh["shard"], mp_policy=policy)
for block in blocks:
    shard(block)
if kempner:
    shard(model, reshard_after_forward=True)
else:
    shard(model.embed)
    shard([model.norm, model.head], reshard_after_forward=False)
    shard(model)
model.to_empty(device="cuda")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=flags.tp == 1)
for _ in range(3):
    for micro in range(flags.accumulate):
        model.set_requires_gradient_sync(micro == flags.accumulate - 1)
        tokens = torch.zeros(flags.rows, flags.seq_len + 1, dtype=torch.int64, device="cuda")
        logits = model(tokens[:, :-1])
        held = logits if kempner else logits.float()
        if not kempner:
            del logits
        loss = cross_entropy(held.flatten(0, 1), tokens[:, 1:].flatten())
        if not kempner:
            del held
        (loss / flags.accumulate).backward()
    optimizer.step()
    optimizer.zero_grad()
