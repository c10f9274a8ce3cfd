"""The command line of each script here: `ddp.py FAULT [--rank 1] [--at step]`.

A fault is a function of outside.py (the ranks chosen run it alone), of calls.py, groups.py or
slow.py (all ranks run it), or of the script itself. The line on which a rank stays, or has raised
before it stays in a finally or except block, is marked HERE; the one on which others wait for it is
marked WAIT.
"""

import argparse
import importlib
import os
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

NSTEPS = 5
FAULT_STEP = 2
"""DDP has built its last buckets by then."""
MODULES = ("calls", "groups", "slow")


@dataclass(frozen=True)
class Job:
    fault: str
    ranks: tuple[int, ...]
    """Those that the fault is of."""
    at: str
    """`start` is before the process group, `model` before the model, `step` in training."""
    slow_s: float
    """How long what is only slow takes."""
    timeout: timedelta
    has_buffers: bool
    """The model has some, which DDP broadcasts from rank 0 in each forward."""

    @property
    def rank(self):
        """The one that the fault is of, where there is one."""
        return self.ranks[0]

    @property
    def is_mine(self):
        return int(os.environ["RANK"]) in self.ranks

    def has(self, fault):
        return self.is_mine and self.fault == fault

    @property
    def nsteps(self):
        return NSTEPS - self.has("fewer_batches")

    def join(self):
        """Make the process group, as a script does first."""
        self.meet("start")
        dist.init_process_group("gloo", timeout=self.timeout)  # WAIT

    def meet(self, where):
        """Run the fault if this is its place; a number is a step."""
        if where != {"step": FAULT_STEP}.get(self.at, self.at):
            return
        outside = importlib.import_module("outside")
        if hasattr(outside, self.fault):
            if self.is_mine:
                getattr(outside, self.fault)()
            return
        for module in map(importlib.import_module, MODULES):
            if hasattr(module, self.fault):
                getattr(module, self.fault)(self)


def from_argv():
    parser = argparse.ArgumentParser()
    parser.add_argument("fault")
    parser.add_argument("--rank", default="1")
    parser.add_argument("--at", default="step", choices=["start", "model", "step"])
    parser.add_argument("--buffers", action="store_true")
    parser.add_argument("--slow-s", type=float, default=8)
    parser.add_argument("--timeout-s", type=float, default=1800)
    args = parser.parse_args()
    ranks = tuple(map(int, args.rank.split(",")))
    timeout = timedelta(seconds=args.timeout_s)
    return Job(args.fault, ranks, args.at, args.slow_s, timeout, args.buffers)
