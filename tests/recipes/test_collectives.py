"""How often ranks speak in one step of each recipe's own loop, with how many bytes, and what
they keep: number by number as the recipes' comments have it."""

from __future__ import annotations

import pytest

from distrun.testing import run_ranks
from tests.recipes.curves import Case, Settings
from tests.recipes.measuring import COUNTED, Measured, measure

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("warm_ranks"),
    pytest.mark.timeout(240),
]

STEPS = COUNTED + 2
"""The last evaluates."""
SETTINGS: Settings = {"steps": STEPS, "batch_size": 8, "seq_len": 16, "eval_batches": 1}

# The model has 4 blocks. `agree` is the all_reduce of the loss in every step; `norm` that of the
# squares of gradients of which a rank has a part.
LAYOUTS: dict[int, dict[str, tuple[str, Settings, dict[str, int]]]] = {
    1: {"single": ("single", {}, {"all_reduce": 1})},
    2: {
        # 1 bucket: 1 MB of gradients is less than 25 MB; + agree
        "ddp": ("ddp_gpt", {}, {"all_reduce": 1 + 1}),
        "ddp, 2 micro-batches": ("ddp_gpt", {"accumulate": 2}, {"all_reduce": 1 + 1}),
        # as ddp; each of 4 · 9 + 3 parameters comes from the rank that has updated it
        "zero1": ("zero1", {}, {"all_reduce": 1 + 1, "broadcast": 4 * 9 + 3}),
        # gathered: 4 blocks and the rest in forward, the 4 blocks again in backward
        "fsdp": (
            "fsdp",
            {},
            {"all_gather": (4 + 1) + 4, "reduce_scatter": 4 + 1, "all_reduce": 2},
        ),
        # not again in backward
        "fsdp, ZeRO-2": (
            "fsdp",
            {"reshard": False},
            {"all_gather": 4 + 1, "reduce_scatter": 4 + 1, "all_reduce": 2},
        ),
        # gathered in each micro-batch, but gradients travel once
        "fsdp, 2 micro-batches": (
            "fsdp",
            {"accumulate": 2},
            {"all_gather": 2 * 9, "reduce_scatter": 4 + 1, "all_reduce": 2},
        ),
        # once in a step: the weights stay until the last backward
        "fsdp, ZeRO-2, 4 micro-batches": (
            "fsdp",
            {"reshard": False, "accumulate": 4},
            {"all_gather": 4 + 1, "reduce_scatter": 4 + 1, "all_reduce": 2},
        ),
        # Forward gathers the tokens before attention, feed-forward and head: 2 · 4 + 1; and
        # scatters sums after attention, feed-forward and embedding: 2 · 4 + 1. Backward does the
        # opposite at each place. The loss asks for the largest logit, the sum of exponentials and
        # the target's logit: 3. Each of 2 · 4 + 1 norms saw a part of the tokens: its gradient
        # is summed. + agree + norm
        "tp": (
            "tp",
            {},
            {"all_gather": 2 * 9, "reduce_scatter": 2 * 9, "all_reduce": 3 + 9 + 2},
        ),
        # the logits are gathered, and every rank has the loss
        "tp, logits whole": (
            "tp",
            {"loss_parallel": False},
            {"all_gather": 2 * 9 + 1, "reduce_scatter": 2 * 9, "all_reduce": 9 + 2},
        ),
        # keys and values go 1 place on in each block, their gradients back; 1 bucket + agree
        "cp": ("cp", {"seq_len": 256}, {"send": 2 * 4 * 1, "all_reduce": 1 + 1}),
        # A block sends counts, tokens and results, backward the gradients of the last two. The
        # fractions of its balancing loss are averaged: 4; 1 bucket + agree + norm + dropped
        "moe": ("moe", {}, {"all_to_all": 4 * (3 + 2), "all_reduce": 4 + 1 + 3}),
        # 4 micro-batches: stage 0 sends activations, stage 1 gradients; agree + norm
        "pp": ("pp", {}, {"send": 4, "all_reduce": 2}),
        # 4 stages have 3 borders, crossed both ways: each rank sends 3 times a micro-batch
        "pp, interleaved": ("pp", {"flow": "interleaved"}, {"send": 3 * 4, "all_reduce": 2}),
    },
    4: {
        # what was scattered inside a group is summed over the copies
        "hsdp 2x2": (
            "fsdp",
            {"replicate": 2},
            {"all_gather": 9, "reduce_scatter": 5, "all_reduce": 5 + 2},
        ),
        # both recipes' numbers; agree and norm come once
        "fsdp 2 x tp 2": (
            "fsdp_tp",
            {},
            {"all_gather": 9 + 18, "reduce_scatter": 5 + 18, "all_reduce": 12 + 2},
        ),
        "tp 4": (
            "tp",
            {},
            {"all_gather": 2 * 9, "reduce_scatter": 2 * 9, "all_reduce": 3 + 9 + 2},
        ),
        # as pp; the gradients of a stage are averaged once a step, in 1 bucket a stage
        "pp 2 x ddp 2, gpipe": ("pp", {"flow": "gpipe"}, {"send": 4, "all_reduce": 2 + 1}),
        "pp 2 x ddp 2, interleaved": (
            "pp",
            {"flow": "interleaved"},
            {"send": 3 * 4, "all_reduce": 2 + 2},
        ),
        # 3 turns of the ring
        "cp 4": ("cp", {"cp": 4}, {"send": 2 * 4 * 3, "all_reduce": 1 + 1}),
    },
}

L, D, V = 4, 64, 256
"""Of --size tiny."""
P = 4 * (4 * 64**2 + 3 * 64 * 192 + 2 * 64) + 64 + 2 * 256 * 64
ENDS = 2 * V * D + D
"""Embedding, head and the norm before it."""
BTD = 8 * 16 * D

# Bytes of a step: of a collective the whole buffer, of which (n - 1) / n travels.
SENT: dict[str, dict[str, int]] = {
    "ddp": {"all_reduce": 4 * P},
    "ddp, 2 micro-batches": {"all_reduce": 4 * P},
    "zero1": {"all_reduce": 4 * P, "broadcast": 4 * P},
    "fsdp": {"all_gather": 4 * (2 * P - ENDS), "reduce_scatter": 4 * P},
    "fsdp, ZeRO-2": {"all_gather": 4 * P, "reduce_scatter": 4 * P},
    "fsdp, 2 micro-batches": {"all_gather": 2 * 4 * (2 * P - ENDS), "reduce_scatter": 4 * P},
    "fsdp, ZeRO-2, 4 micro-batches": {"all_gather": 4 * P, "reduce_scatter": 4 * P},
    "hsdp 2x2": {
        "all_gather": 4 * (2 * P - ENDS), "reduce_scatter": 4 * P, "all_reduce": 4 * P // 2,
    },
    # two places a block, forward and backward, and two at the ends
    "tp": {"all_gather": 4 * BTD * 2 * (2 * L + 1), "reduce_scatter": 4 * BTD * 2 * (2 * L + 1)},
    # keys and values of [B, T / 2, D], a block, there and their gradients back; T is 256
    "cp": {"send": 2 * 2 * 4 * 8 * 256 // 2 * D * L, "all_reduce": 4 * P},
    # [rows, T, D] of each of 4 micro-batches: activations, or their gradients
    "pp": {"send": 4 * BTD},
    "pp, interleaved": {"send": 3 * 4 * BTD},
    # two copies of this rank's half of the tokens, 4 times a block
    "moe": {"all_to_all": L * 4 * 2 * 4 * BTD // 2},
}  # fmt: skip


def results_of(ranks: int) -> list[dict[str, Measured]]:
    """Return what each rank has measured of each layout."""
    cases = [Case(name, rec, SETTINGS | more) for name, (rec, more, _) in LAYOUTS[ranks].items()]
    found = run_ranks(lambda world: measure(cases, world), ranks, "gloo", 220)
    return [{c.name: m for c, m in zip(cases, of_rank, strict=True)} for of_rank in found]


def require_counts(results: list[dict[str, Measured]], ranks: int) -> None:
    wrong = {}
    for rank, of_rank in enumerate(results):
        for name, found in of_rank.items():
            expected = LAYOUTS[ranks][name][2]
            theirs = {kind: n for kind, n in expected.items() if kind != "send"}
            if found.counts not in ([expected], [expected, theirs]):
                wrong[f"{name}, rank {rank}"] = found.counts
    for name in results[0]:
        for kind, nbytes in SENT.get(name, {}).items():
            # of all ranks: experts are asked unequally
            of_ranks = [of_rank[name].sent.get(kind, 0) for of_rank in results]
            if sum(of_ranks) != nbytes * ranks:
                wrong[f"{name}, bytes of {kind}"] = (of_ranks, nbytes)
    assert wrong == {}


def test_one_rank_keeps_16_bytes_a_parameter() -> None:
    (found,) = results_of(1)
    single = found["single"]
    assert (single.weights, single.gradients, single.state) == (4 * P, 4 * P, 8 * P)
    require_counts([found], 1)


def test_two_ranks_send_and_keep_what_the_arithmetic_says() -> None:
    results = results_of(2)
    require_counts(results, 2)
    alone = single_activations()
    zero1 = [of_rank["zero1"].state for of_rank in results]
    assert sum(zero1) == 8 * P and max(zero1) > 8 * P / 2  # a floor: no parameter is cut
    for found in results:
        for name in ("fsdp", "fsdp, ZeRO-2", "fsdp, 2 micro-batches"):
            kept = found[name]
            assert kept.weights + kept.gradients + kept.state == 16 * P / 2, name
        require_tp_keeps(found["tp"], alone, 2)
        cp, whole = found["cp"], alone * 256 // 16
        assert whole / 2 < cp.activations < whole / 2 + L * 3 * 4 * 8 * 256 * D
        assert cp.largest < 4 * 8 * 4 * (256 // 2) ** 2, "a matrix of scores was kept"
        assert found["pp"].weights == pytest.approx(4 * P / 2, rel=1e-3)


def test_four_ranks_send_and_keep_what_the_arithmetic_says() -> None:
    results = results_of(4)
    require_counts(results, 4)
    alone = single_activations()
    for found in results:
        require_tp_keeps(found["tp 4"], alone, 4)
        kept = found["fsdp 2 x tp 2"]  # norms are not cut among tp, only among shard
        assert kept.weights + kept.gradients + kept.state == pytest.approx(16 * P / 4, rel=5e-3)


def single_activations() -> int:
    """Return what forward keeps on one rank: a of the comments."""
    case = Case("alone", "single", SETTINGS)
    ((found,),) = run_ranks(lambda world: measure([case], world), 1, "gloo", 60)
    return found.activations


def require_tp_keeps(found: Measured, alone: int, ranks: int) -> None:
    """Activations a / n and what is gathered whole; the embedding's gradient is not cut."""
    cut = 4 * P / ranks
    assert found.weights == pytest.approx(cut, rel=1e-2)
    whole_gradient = 4 * V * D * (1 - 1 / ranks)
    assert found.gradients == pytest.approx(found.weights + whole_gradient)
    gathered = (2 * L + 1) * 4 * BTD * (1 - 1 / ranks)
    assert 0.7 * gathered < found.activations - alone / ranks < 1.2 * gathered
