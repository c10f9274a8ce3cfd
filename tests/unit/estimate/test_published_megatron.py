"""Megatron-LM on A100, as Korthikanti et al. measured it (arXiv 2205.05198, tables 4 and 5).

No constant was fitted on these rows: other models, another system, tensor and pipeline parallelism.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from distrun.estimate.activations import Activations, kept_of_block
from distrun.estimate.kinds import KINDS
from distrun.estimate.layout import AXES, Layout, Recompute, Step, Training
from distrun.estimate.network import Cluster
from distrun.estimate.outcome import outcome
from distrun.estimate.presets import preset
from distrun.estimate.recipe import Planned
from distrun.estimate.shape import Shape
from distrun.estimate.timeline import chunks_of
from tests.unit.estimate.published import rows

TP = 8


def training(row: dict[str, str], mode: Recompute) -> Training:
    layers, dim, heads = (int(row[name]) for name in ("layers", "dim", "heads"))
    shape = Shape(
        *(layers, dim, heads, heads, dim // heads, 4 * dim, 51200),
        tied=True,
        gated=False,
        biases=True,
        positions=2048,
    )
    layout = Layout(tp=TP, pp=int(row["pp"]), rounds=int(row["rounds"]))
    step = Step(2048, int(row["rows"]), int(row["accumulate"]), mode)
    return Training(shape, layout, preset("megatron-2022"), step)


@pytest.mark.parametrize("row", rows("megatron.csv"), ids=lambda row: row["model"])
@pytest.mark.parametrize("mode", ["none", "attention"])
def test_the_activations_of_all_layers_are_those_published(
    row: dict[str, str], mode: Recompute
) -> None:
    one = training(row, mode)
    if mode == "none":  # the paper's baseline has no sequence parallelism
        one = replace(one, formats=replace(one.formats, sequence_parallel=False))
    sizes = Activations(one)
    layer = sizes.residual + sum(map(sum, kept_of_block(sizes.block(), mode, compiled=False)))
    passes = chunks_of(one, 0) / one.layout.rounds
    found = layer * one.shape.layers / one.layout.pp * passes
    assert found / 2**30 == pytest.approx(float(row[f"{mode}_gib"]), rel=0.002)


@pytest.mark.parametrize("row", rows("megatron.csv"), ids=lambda row: row["model"])
@pytest.mark.parametrize("mode", ["full", "attention"])
def test_an_iteration_is_within_20_percent(row: dict[str, str], mode: Recompute) -> None:
    one = training(row, mode)
    plan = Planned(one, {axis: getattr(one.layout, axis) for axis in AXES}, {})
    cluster = Cluster(KINDS["a100-80"], one.layout.pp, TP)
    time = outcome(plan, cluster, replay=False).time
    assert time is not None
    assert time.total == pytest.approx(float(row[f"{mode}_s"]), rel=0.20)
