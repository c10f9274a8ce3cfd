"""The formula against a trace of the recipes' own step: traffic byte for byte, memory nearly."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import cache

import pytest

from distrun.api.estimate import Asked, plan_of
from distrun.estimate import formula
from distrun.estimate.depths import whole
from distrun.estimate.exchange import Answer, Order, heard
from distrun.estimate.recipe import Planned
from distrun.estimate.work import Collective, Work
from tests.test_architecture import ROOT
from tests.unit.estimate.configurations import Case, cases

MEMORY = 0.03


@cache
def answers(of: tuple[Case, ...]) -> dict[Case, Answer]:
    """Trace cases of one world size in one process: the import of torch takes longest."""
    orders = [asdict(Order(str(ROOT / c.words[0]), c.words[1:], c.world_size, 8)) for c in of]
    child = subprocess.run(
        [sys.executable, "-m", "tests.unit.estimate.many_traces"],
        input=json.dumps(orders),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
    )
    lines = [heard(line) for line in child.stdout.splitlines()]
    assert len(lines) == len(of), child.stderr[-2000:]
    found = {}
    for case, line in zip(of, lines, strict=True):
        assert isinstance(line, Answer), f"{case}: {line}"
        found[case] = line
    return found


def planned(case: Case) -> Planned:
    return plan_of(Asked(words=case.words), case.world_size)[1]


def by_formula(case: Case) -> Work:
    plan = planned(case)
    return formula.work(plan.training)


def traffic(collectives: Iterable[Collective], plan: Planned) -> dict[Collective, int]:
    """Return the counts of calls, with the axes as the script names them."""
    named = [replace(c, axis=plan.axes.get(c.axis, c.axis)) for c in collectives]
    return {replace(c, count=0): c.count for c in named}


def differences(case: Case, traced: Work) -> dict[str, tuple[int, int]]:
    """Return the counts, traced and told, of the calls in which they differ."""
    plan, told = planned(case), by_formula(case)
    mine, theirs = traffic(traced.collectives, plan), traffic(told.collectives, plan)
    return {
        f"{c.op} {c.axis} {c.nbytes} {c.phase}": (mine.get(c, 0), theirs.get(c, 0))
        for c in {**mine, **theirs}
        if mine.get(c, 0) != theirs.get(c, 0)
    }


QUICK = tuple(
    Case(
        "fsdp", 8, f"--size 124M --seq-len 64 --no-tied --precision bfloat16 --batch-size 16{flags}"
    )
    for flags in ("", " --recompute full")
)


def test_some_configurations_agree_in_traffic_and_memory() -> None:
    for case, answer in answers(QUICK).items():
        traced, told = whole(answer), by_formula(case)
        assert not differences(case, traced), case
        assert abs(told.allocated / traced.allocated - 1) < MEMORY, case


@pytest.mark.thorough
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("world_size", [8, 64, 512])
def test_all_configurations_agree_in_traffic(world_size: int) -> None:
    found = answers(tuple(case for case in cases() if case.world_size == world_size))
    wrong = {str(case): differences(case, whole(answer)) for case, answer in found.items()}
    assert not {case: what for case, what in wrong.items() if what}
