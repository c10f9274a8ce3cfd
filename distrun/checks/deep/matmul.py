"""Compares the speed of matrix products between devices."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from distrun.checks.each import each_node
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    if node.measured is None or len(node.measured.ranks) < 2:
        return
    usual = statistics.median(rank.matmul_flops for rank in node.measured.ranks)
    least = limits.matmul_share_warn * usual
    for rank in node.measured.ranks:
        if rank.matmul_flops < least:
            yield Observation(
                Severity.WARN,
                f"{rank.matmul_flops / 1e12:.3g} TFLOP/s",
                f"{least / 1e12:.3g} or more: the median is {usual / 1e12:.3g}",
                device=f"rank {rank.rank} {rank.device}",
            )


RULE = Rule(
    id="deep.matmul",
    title="Matrix products of each device",
    why="All ranks wait for the slowest in every step: one GPU at 70 % makes all of them run"
    " at 70 %. Causes are heat, power, another user or a broken card.",
    fix="`distrun check` may show the cause (clocks, temperature, processes); else move the"
    " job, and run `--deep` again when the GPU is cool.",
    source="distrun's own rule; stas00/ml-engineering on finding slow GPUs",
    judge=each_node(_check),
)
