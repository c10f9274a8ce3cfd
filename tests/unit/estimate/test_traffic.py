"""What a rank sends, in closed form."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from distrun.estimate.layout import Formats, Layout, Step, Training
from distrun.estimate.presets import preset
from distrun.estimate.traffic import Traffic, bucket_sizes, padding
from distrun.estimate.units import units_of
from tests.unit.estimate.published import LLAMA_8B

MIB = 2**20


def sent(layout: Layout, formats: Formats | None = None, accumulate: int = 1) -> Counter[str]:
    step = Step(8192, 1, accumulate)
    training = Training(LLAMA_8B, layout, formats or Formats(), step)
    found: Counter[str] = Counter()
    for one in Traffic(training).collectives():
        found[f"{one.op} {one.axis}"] += one.nbytes * one.count
    return found


def test_ddp_reduces_every_gradient_once_in_buckets() -> None:
    autocast = preset("autocast")
    once = sent(Layout(replicate=8), autocast)
    assert once["all_reduce replicate"] == 4 * LLAMA_8B.parameters
    assert sent(Layout(replicate=8), autocast, accumulate=4) == once  # no_sync


@pytest.mark.parametrize(("ranks", "mib"), [(8, 30633), (64, 30633), (1024, 30657), (4096, 35841)])
def test_fsdp_pads_each_parameter_to_a_multiple_of_the_ranks(ranks: int, mib: int) -> None:
    assert sent(Layout(shard=ranks, stage=3))["reduce_scatter shard"] // MIB == mib


def test_the_padding_is_what_more_is_gathered_than_there_is() -> None:
    training = Training(LLAMA_8B, Layout(shard=4096, stage=3), Formats(), Step(8192, 1))
    assert padding(units_of(training, 0).all) == pytest.approx(0.17, abs=0.005)


def test_zero2_gathers_once_a_step_and_zero3_in_each_pass() -> None:
    two = sent(Layout(shard=8, stage=2), accumulate=4)
    three = sent(Layout(shard=8, stage=3), accumulate=4)
    assert two["all_gather shard"] == pytest.approx(2 * LLAMA_8B.parameters)
    assert three["all_gather shard"] > 7 * two["all_gather shard"]
    assert two["reduce_scatter shard"] == three["reduce_scatter shard"]


@pytest.mark.parametrize("layers", [31, 32, 33])
@pytest.mark.parametrize(
    ("stage", "recurring"), [(3, {"all_gather"}), (2, set[str]()), (0, set[str]())]
)
def test_what_each_micro_batch_sends_is_told_whatever_the_number_of_layers(
    layers: int, stage: int, recurring: set[str]
) -> None:
    layout = Layout(shard=8, stage=stage) if stage else Layout(replicate=8)
    shape = replace(LLAMA_8B, layers=layers)
    found = Traffic(Training(shape, layout, Formats(), Step(8192, 1, 4))).collectives()
    assert {one.op for one in found if one.recurs} == recurring


def test_copies_of_hsdp_reduce_only_their_shards() -> None:
    found = sent(Layout(replicate=4, shard=8, stage=3))
    assert found["all_reduce replicate"] == found["reduce_scatter shard"] // 8


def test_sequence_parallel_gathers_and_scatters_twice_a_layer_in_each_direction() -> None:
    found = sent(Layout(tp=8, shard=8, stage=3))
    one = 2 * 8192 * LLAMA_8B.dim
    assert found["all_gather tp"] == (4 * LLAMA_8B.layers + 2) * one
    assert found["reduce_scatter tp"] == (4 * LLAMA_8B.layers + 2) * one


def test_a_stage_sends_to_the_next_and_back() -> None:
    found = sent(Layout(pp=4, shard=2, stage=2), accumulate=8)
    assert found["sendrecv pp"] == 8 * 4 * 8192 * LLAMA_8B.dim  # the first sends, and gets back


def test_buckets_are_closed_by_the_gradient_that_fills_them() -> None:
    mib = 2**18  # elements
    assert bucket_sizes([mib // 2, mib, 10 * mib, 20 * mib, 1], 4) == [
        int(1.5 * MIB),
        30 * MIB,
        4,
    ]
    assert bucket_sizes([], 4) == []
