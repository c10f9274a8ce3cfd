"""What a recipe's step takes, against a bare loop, Accelerate and Lightning Fabric.

    python -m benchmarks.recipes [--recipe fsdp] [--steps 150] [--size small]

Needs the extra `bench`. Two ranks, gloo, the same processes for all: the recipe's own `train()`
runs unchanged, and whenever it asks for its next batch the others take a step each, in a random
order. A step begins with a barrier, and takes as long as its slowest rank. CPU time is that of
both ranks; where others use the machine too it says more, for who has to wait is chance.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from benchmarks.comm_overhead import Goal, spread, verdict
from distrun import comm
from distrun.env import REPORT, TorchrunEnv
from distrun.testing.ranks import run_ranks
from distrun.train.config import parse
from distrun.train.setup import Place

STRATEGIES = {"ddp_gpt": "ddp", "fsdp": "fsdp"}
GOALS: dict[str, Goal] = {
    "bare torch": (1.01, "×"),
    "Accelerate": (1.0, "×"),
    "Lightning Fabric": (1.0, "×"),
}
OURS = "recipe"
WARM_UP = 5
"""Steps in which buckets, connections and the optimizer's state are made."""


class Cost(NamedTuple):
    """Of one step."""

    wall_s: float
    cpu_s: float


class InTurn:
    """Lets the loops take their steps between those of the recipe, and measures all of them."""

    def __init__(self, loops: dict[str, Iterator[None]]) -> None:
        self.loops, self.order = loops, list(loops)
        self.costs: dict[str, list[Cost]] = {side: [] for side in (OURS, *loops)}
        self.dice = random.Random(0)  # the same on all ranks

    def batches(self, original: Any, *args: Any) -> Iterator[Any]:
        """Stand in for the recipe's `batches`: the same items."""
        items = original(*args)
        while True:
            self.dice.shuffle(self.order)
            for side in self.order:
                began = begin_together()
                next(self.loops[side], None)
                self.costs[side].append(cost_since(began))
            began = begin_together()
            item = next(items, None)
            if item is None:
                return
            yield item  # the recipe's step
            self.costs[OURS].append(cost_since(began))


def begin_together() -> Cost:
    dist.barrier()
    return Cost(time.perf_counter(), time.process_time())


def cost_since(began: Cost) -> Cost:
    return Cost(time.perf_counter() - began.wall_s, time.process_time() - began.cpu_s)


def measured(name: str, flags: list[str], world: comm.World) -> dict[str, list[Cost]]:
    """Train all sides on this rank; return what each step cost."""
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
    recipe: Any = importlib.import_module(name)
    loops = importlib.import_module("benchmarks.loops").LOOPS
    report = os.open(os.devnull, os.O_WRONLY)  # metrics are written, as under `distrun launch`
    os.environ[REPORT] = f"{report}:{os.fstat(report).st_ino}"
    config = parse(recipe.Config, recipe.axes, words=flags)
    in_turn = InTurn({side: loop(STRATEGIES[name], config) for side, loop in loops.items()})
    recipe.batches = partial(in_turn.batches, recipe.batches)
    recipe.train(config, Place(TorchrunEnv.read(), world))
    # without the last, in which the recipe evaluates
    return {side: costs[WARM_UP : config.steps - 1] for side, costs in in_turn.costs.items()}


def compare(name: str, flags: list[str]) -> list[str]:
    """Print a table for one recipe; return a line for each goal."""
    ranks = run_ranks(partial(measured, name, flags), 2, "gloo", timeout_s=1800.0, check=False)
    costs = {side: merged([rank[side] for rank in ranks]) for side in ranks[0]}
    ours = costs.pop(OURS)
    print(f"\n{name}: {len(ours)} steps of each; ratios: medians (quartiles)")
    print(f"  {OURS:18}{shown(ours)}")
    verdicts = []
    for side, theirs in costs.items():
        pairs = list(zip(ours, theirs, strict=True))
        wall, cpu = ([a[i] / b[i] for a, b in pairs] for i in (0, 1))
        print(f"  {side:18}{shown(theirs)}   recipe × {spread(wall, 3)}, CPU × {spread(cpu, 3)}")
        verdicts.append(verdict(f"{name} / {side}", wall, GOALS[side]))
        verdicts.append(verdict(f"{name} / {side}, CPU time", cpu, GOALS[side]))
    return verdicts


def merged(ranks: list[list[Cost]]) -> list[Cost]:
    steps = zip(*ranks, strict=True)
    return [Cost(max(c.wall_s for c in step), sum(c.cpu_s for c in step)) for step in steps]


def shown(costs: list[Cost]) -> str:
    wall_ms, cpu_ms = (1e3 * statistics.median(column) for column in zip(*costs, strict=True))
    return f"{wall_ms:7.1f} ms, {cpu_ms:7.1f} ms of CPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=STRATEGIES, help="one of them alone")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--size", default="small")
    asked = parser.parse_args()
    names = [asked.recipe] if asked.recipe else list(STRATEGIES)
    flags = f"--steps {asked.steps} --size {asked.size} --batch-size 8"
    flags += " --eval-every 0 --eval-batches 1 --no-save --resume none"
    verdicts = [line for name in names for line in compare(name, flags.split())]
    print(f"\n{'':40} measured              goal    met", *verdicts, sep="\n")


if __name__ == "__main__":
    main()
