"""What DDP, ZeRO-1, ZeRO-2, ZeRO-3 and offload keep in each rank's memory, as a table.

    python -m benchmarks.memory [--size small] [--ranks 2]

Each layout trains three steps of the GPT with AdamW in float32. Counted are the bytes of the
tensors themselves, on this rank, after the second backward pass and before its optimizer step:
weights, gradients and optimizer state, each storage once. `peak` is the largest total of torch's
CPU allocator in the third step and its evaluation, as its profiler reports it: these three,
activations, and what FSDP gathers, which varies from run to run. Given is the rank with most. On a
CPU the memory of the device and that of the host are one, so offload shows here that it costs no
more; what it frees on a GPU, this does not measure.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor
from torch.profiler import ProfilerActivity, profile

from distrun.env import scrubbed
from distrun.train.setup import start

RECIPES = Path(__file__).parents[1] / "recipes"
LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "DDP": ("ddp_gpt", {}),
    "ZeRO-1": ("zero1", {}),
    "ZeRO-2": ("fsdp", {"reshard": False}),
    "ZeRO-3": ("fsdp", {}),
    "ZeRO-3, offload": ("fsdp", {"offload": True}),
}
ENVIRON = {**scrubbed(os.environ), "OMP_NUM_THREADS": "1"}


class Used(NamedTuple):
    """Bytes of one rank."""

    weights: int
    gradients: int
    optimizer: int
    peak: int


def nbytes(tensors: Iterable[Tensor | None]) -> int:
    """Return the bytes of the storages behind tensors, each once, on this rank."""
    local = [t.to_local() if isinstance(t, DTensor) else t for t in tensors if t is not None]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in local}
    return sum(storages.values())


def used(recipe: str, settings: dict[str, Any]) -> Used | None:
    """Train three steps; return what the rank with most kept, on rank 0."""
    sys.path.insert(0, str(RECIPES))
    module: Any = importlib.import_module(recipe)
    config = module.Config(save=False, resume="none", steps=3, **settings)
    counted: list[tuple[int, int, int]] = []
    clip = module.optim.clip_grad_norm

    def count(parameters: Iterable[torch.nn.Parameter], max_norm: float) -> Tensor:
        """Count in the place where every recipe has all of its gradients."""
        kept = list(parameters)
        states = optimizers[-1].state.values()
        values = [v for state in states for v in state.values() if isinstance(v, Tensor)]
        counted.append((nbytes(kept), nbytes(p.grad for p in kept), nbytes(values)))
        norm: Tensor = clip(kept, max_norm)
        return norm

    optimizers: list[torch.optim.Optimizer] = []
    build = module.build_optimizer

    def built(model: torch.nn.Module, config: Any) -> torch.optim.Optimizer:
        made = build(model, config)
        optimizers.append(made.optim if isinstance(made, ZeroRedundancyOptimizer) else made)
        return made  # type: ignore[no-any-return]

    module.optim.clip_grad_norm, module.build_optimizer = count, built
    with start(config) as place:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            module.train(config, place)
        found = torch.tensor([*counted[1], peak_of(profiler)])
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return Used(*found.tolist()) if place.rank == 0 else None


def peak_of(profiler: profile) -> int:
    """Return the largest total of the CPU's allocator after the second optimizer step."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        profiler.export_chrome_trace(file.name)
        events = json.loads(Path(file.name).read_text())["traceEvents"]
    steps = sorted(e["ts"] for e in events if str(e["name"]).startswith("Optimizer.step"))
    return max(
        int(event["args"]["Total Allocated"])
        for event in events
        if event["name"] == "[memory]"
        and event["args"]["Device Type"] == 0
        and event["ts"] > steps[1]
    )


def measured(name: str, ranks: int, size: str) -> Used:
    """Train a layout in processes of its own."""
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    words += [__file__, "--one", name, "--size", size, "--ranks", str(ranks)]
    run = subprocess.run([sys.executable, *words], env=ENVIRON, capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr[-3000:])
    return Used(*json.loads(run.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="small")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--one", choices=LAYOUTS, help="on this rank, of torchrun's")
    asked = parser.parse_args()
    if asked.one:
        recipe, more = LAYOUTS[asked.one]
        few = {"batch_size": asked.ranks, "seq_len": 32, "eval_batches": 1}
        if found := used(recipe, {"size": asked.size, **few, **more}):
            print(json.dumps(found))
        return
    print(f"MB (10^6 bytes) on the rank with most, of {asked.ranks}, --size {asked.size}:\n")
    print(f"| layout | {' | '.join(Used._fields)} |\n|---|{'---:|' * len(Used._fields)}")
    for name in LAYOUTS:
        row = measured(name, asked.ranks, asked.size)
        print(f"| {name} | {' | '.join(f'{n / 1e6:.1f}' for n in row)} |", flush=True)


if __name__ == "__main__":
    main()
