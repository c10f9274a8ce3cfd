"""How often the ranks speak in one step of each recipe's own loop, number by number."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.utils._python_dispatch import TorchDispatchMode

from distrun.comm import World
from distrun.testing import run_ranks
from tests.recipes.curves import Case, Settings, imported, train
from tests.recipes.launching import giving_way

pytestmark = [pytest.mark.usefixtures("warm_ranks"), pytest.mark.timeout(240)]

STEPS, COUNTED = 4, 2
"""In the first two steps DDP finds out in which order gradients come; the last evaluates."""
SETTINGS: Settings = {"steps": STEPS, "batch_size": 8, "seq_len": 16, "eval_batches": 1}
NAMES = {
    "allreduce_": "all_reduce",
    "_allgather_base_": "all_gather",
    "all_gather_into_tensor": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_tensor": "reduce_scatter",
    "all_to_all_single": "all_to_all",
    "broadcast_": "broadcast",
}
"""c10d's names, and those of its functional collectives."""
SILENT = {"wait_tensor", "_wrap_tensor_autograd", "recv_"}

# The model has 4 blocks. `agree` is the all_reduce of the loss in every step; `norm` that of the
# squares of gradients of which a rank has a part.
LAYOUTS: dict[int, dict[str, tuple[str, Settings, dict[str, int]]]] = {
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
        "cp": ("cp", {}, {"send": 2 * 4 * 1, "all_reduce": 1 + 1}),
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
        # 3 turns of the ring
        "cp 4": ("cp", {"cp": 4}, {"send": 2 * 4 * 3, "all_reduce": 1 + 1}),
    },
}


class Messages(TorchDispatchMode):
    """Counts as CommDebugMode does, which sees no send, and takes one forward pass alone."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it comes back as messages of its parts
        if func.namespace in ("c10d", "_c10d_functional"):
            self.counts[func._schema.name.partition("::")[2]] += 1
        return func(*args, **(kwargs or {}))


def by_our_names(counts: dict[str, int]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for name, count in counts.items():
        if name not in SILENT:
            found[NAMES.get(name, name)] += count
    return dict(found)


def counted(batches: Callable[..., Any], found: list[dict[str, int]], debug: bool) -> Any:
    """Return a recipe's `batches` so that one step of its loop is counted."""

    def with_counts(*args: Any) -> Iterator[Any]:
        for item in batches(*args):
            if item[0] != COUNTED:
                yield item
                continue
            theirs = CommDebugMode() if debug else contextlib.nullcontext()
            with Messages() as ours, theirs:
                yield item  # the loop's body runs here
            found.append(by_our_names(ours.counts))
            if isinstance(theirs, CommDebugMode):
                seen = {str(op).rpartition(".")[2]: n for op, n in theirs.get_comm_counts().items()}
                found.append(by_our_names(seen))

    return with_counts


def count(cases: list[Case], world: World) -> list[list[dict[str, int]]]:
    """Return what each case sent in one step: as counted here, and by CommDebugMode."""
    results = []
    for case in cases:
        module, found = imported(case.recipe), list[dict[str, int]]()
        one_pass = case.recipe != "pp" and case.settings.get("accumulate", 1) == 1
        before = module.batches
        module.batches = counted(before, found, one_pass)
        try:
            with giving_way():
                train(case, world)
        finally:
            module.batches = before
        results.append(found)
    return results


@pytest.mark.parametrize("ranks", LAYOUTS)
def test_a_step_sends_what_the_arithmetic_says_on_every_rank(ranks: int) -> None:
    layouts = LAYOUTS[ranks]
    cases = [Case(name, recipe, SETTINGS | more) for name, (recipe, more, _) in layouts.items()]
    wrong = {}
    for rank, results in enumerate(run_ranks(lambda w: count(cases, w), ranks, "gloo", 220)):
        for case, found in zip(cases, results, strict=True):
            expected = layouts[case.name][2]
            theirs = {name: n for name, n in expected.items() if name != "send"}
            if found not in ([expected], [expected, theirs]):
                wrong[f"{case.name}, rank {rank}"] = found
    assert wrong == {}
