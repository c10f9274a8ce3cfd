"""Published rows as trainings for the formula.

memory.csv: KempnerForge (benchmarks/mfu_scaling, max_memory_allocated) and torchtitan (Llama 3 8B,
December 2024, max_reserved); both train Llama 3 8B. step_times.csv: MosaicML's llm-foundry
(scripts/train/benchmarking), MPT models, step times from its tokens per second.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path

from distrun.estimate import formula
from distrun.estimate.kinds import KINDS, Kind
from distrun.estimate.layout import Layout, Step, Training
from distrun.estimate.network import Cluster
from distrun.estimate.presets import preset
from distrun.estimate.shape import Shape
from distrun.estimate.step_time import Pace, step_time
from distrun.estimate.work import Work

LLAMA_8B = Shape(32, 4096, 32, 8, 128, 14336, 128256)
GPUS_OF_A_NODE = 8


def rows(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of_memory(row: dict[str, str]) -> Training:
    layout = Layout(shard=int(row["shard"]), tp=int(row["tp"]), stage=3)
    formats = preset(row["system"], compiled=row["compiled"] == "1")
    step = Step(int(row["seq_len"]), int(row["rows"]), int(row["accumulate"]), row["recompute"])
    return Training(LLAMA_8B, layout, formats, step)


def of_step(row: dict[str, str]) -> Training:
    layers, dim, heads = (int(row[name]) for name in ("layers", "dim", "heads"))
    seq_len = int(row["seq_len"])
    shape = Shape(
        *(layers, dim, heads, heads, dim // heads, 4 * dim, 50368),
        tied=True,
        gated=False,
        biases=True,
        positions=seq_len,
    )
    formats = replace(preset("llm-foundry"), reduce=int(row["reduce"]))
    step = Step(seq_len, int(row["rows"]), int(row["accumulate"]), row["recompute"])
    return Training(shape, Layout(shard=int(row["gpus"]), stage=3), formats, step)


@cache
def _work(training: Training) -> Work:
    return formula.arithmetic(training)


def error_of_step(row: dict[str, str], kind: Kind | None = None) -> float:
    """Return predicted by measured step time, less 1."""
    training = of_step(row)
    mesh = {"shard": training.layout.shard}
    pace = Pace(mesh, training.step.accumulate, layers=training.shape.layers)
    nodes = training.layout.shard // GPUS_OF_A_NODE
    cluster = Cluster(kind or KINDS[row["kind"]], nodes, GPUS_OF_A_NODE)
    return step_time(_work(training), pace, cluster).total / float(row["step_s"]) - 1
