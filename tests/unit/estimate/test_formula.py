"""Memory and work of a step, by rules that hold for every layout."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distrun.errors import UsageError
from distrun.estimate import formula
from distrun.estimate.holdings import largest_share
from distrun.estimate.layout import Layout, Step, Training
from distrun.estimate.presets import preset
from distrun.estimate.shape import Shape
from distrun.estimate.timeline import in_flight_of
from distrun.estimate.work import Work

SMALL = Shape(8, 256, 8, 4, 32, 704, 1024)
FSDP, AUTOCAST = preset("fsdp"), preset("autocast")


def work(layout: Layout, step: Step | None = None, **formats: object) -> Work:
    base = FSDP if layout.stage >= 2 else AUTOCAST
    changed = replace(base, **formats)  # type: ignore[arg-type]
    return formula.work(Training(SMALL, layout, changed, step or Step(256, 2)))


def test_one_rank_holds_sixteen_bytes_a_parameter_in_the_optimizer() -> None:
    (peak,) = (one for one in work(Layout()).peaks if one.phase == "optimizer")
    assert peak.total == pytest.approx(16 * SMALL.parameters, rel=0.01)


def test_what_fsdp_shares_is_divided_by_the_ranks() -> None:
    (peak,) = (one for one in work(Layout(shard=8, stage=3)).peaks if one.phase == "optimizer")
    assert peak.total == pytest.approx(2 * SMALL.parameters, rel=0.02)


@pytest.mark.parametrize("stage", [2, 3])
def test_more_recomputation_never_needs_more_memory(stage: int) -> None:
    layout = Layout(shard=4, stage=stage)  # type: ignore[arg-type]
    modes = ("none", "selective", "full")
    sizes = [work(layout, Step(512, 8, recompute=mode)).allocated for mode in modes]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 1.5


def test_waiting_gradients_are_whole_until_the_last_micro_batch() -> None:
    layout, one, two = Layout(shard=8, stage=3), Step(64, 1), Step(64, 1, 2)
    more = work(layout, two).allocated - work(layout, one).allocated
    assert more == pytest.approx(4 * SMALL.parameters, rel=0.15)


def test_a_pipeline_keeps_the_activations_of_as_many_micro_batches_as_stages_follow() -> None:
    step = Step(256, 2, 8)
    base = Training(SMALL, Layout(pp=4), AUTOCAST, step)
    assert [in_flight_of(base, stage) for stage in range(4)] == [4, 3, 2, 1]
    gpipe = replace(base, layout=replace(base.layout, flow="gpipe"))
    assert in_flight_of(gpipe, 3) == 8


def test_compiled_layers_keep_less() -> None:
    assert work(Layout(), compiled=True).allocated < work(Layout()).allocated


def test_backward_does_twice_the_products_of_forward_and_recomputation_once_more() -> None:
    def flops(step: Step, phase: str) -> int:
        found = work(Layout(), step).matmuls
        return sum(m.m * m.n * m.k * m.count for m in found if m.phase == phase)

    plain, again = Step(256, 2), Step(256, 2, recompute="full")
    assert flops(plain, "backward") == 2 * flops(plain, "forward")
    head = 512 * SMALL.vocab * SMALL.dim
    assert flops(again, "backward") == 3 * flops(again, "forward") - head


def test_ranks_of_tp_share_the_products() -> None:
    def flops(layout: Layout) -> int:
        return sum(m.m * m.n * m.k * m.count for m in work(layout).matmuls)

    assert flops(Layout(tp=4)) == flops(Layout()) // 4


def test_zero1_gives_whole_parameters_to_the_emptiest_rank() -> None:
    assert largest_share([5, 9, 1, 4], 2) == 10  # 9 + 1, and 5 + 4
    assert largest_share([7], 4) == 7


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout(tp=3), "heads 8 does not divide among 3 ranks of tp"),
        (Layout(tp=8), "kv_heads 4 does not divide among 8 ranks of tp"),
        (Layout(pp=3), "layers 8 does not divide among 3 ranks of pp"),
        (Layout(ep=2, replicate=2), "without experts"),
        (Layout(shard=0), "shard=0 is below 1"),
    ],
)
def test_a_layout_that_does_not_divide_the_model_is_refused(layout: Layout, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        work(layout)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step(0, 1), "seq_len=0 is below 1"),
        (Step(10**15, 1), "logits"),
        (Step(256, 1, 10**9), "1000000000 micro-batches"),
    ],
)
def test_a_step_that_overflows_is_refused(step: Step, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        work(Layout(), step)


def test_what_is_not_validated_is_said() -> None:
    assert any("context parallelism" in note for note in work(Layout(cp=2)).notes)
    experts = replace(SMALL, experts=4)
    moe = formula.work(Training(experts, Layout(replicate=4, ep=4), AUTOCAST, Step(256, 1)))
    assert any("routing" in note for note in moe.notes)
    padded = formula.work(Training(SMALL, Layout(shard=192, stage=3), FSDP, Step(256, 1)))
    assert any("pads 128 rows" in note for note in padded.notes)
