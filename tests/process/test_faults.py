"""Whatever fault a training run meets: the documented exit code, who and why, and nothing left.

By default a part of the table is launched, on one node and on two emulated ones. All of it, with
the seconds from fault to exit, and with torchrun beside it: `python -m tests.faults`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.cases import CASES, Case
from tests.faults.judge import torchrun_names, wrong_with
from tests.faults.run import Measured, measure
from tests.faults.running import ONE, TWO, Layout
from tests.faults.settings import NotHere

LAUNCHES = [
    pytest.param(case, layout, id=f"{case.id}-{layout.id}")
    for case in CASES
    for layout in (ONE, TWO)
    if layout in case.layouts
]


@pytest.mark.timeout(240)
@pytest.mark.ci_cases(6)
@pytest.mark.parametrize(("case", "layout"), LAUNCHES)
def test_a_fault_ends_a_run_with_its_code_and_its_cause_or_the_run_goes_on(
    case: Case, layout: Layout, tmp_path: Path
) -> None:
    try:
        measured = measure(case, layout, "distrun", tmp_path, None)
    except NotHere as reason:
        pytest.skip(str(reason))
    assert not wrong_with(case, measured), measured.screen


RIGHT = Measured(
    case="exit_3",
    layout="2x2",
    by="distrun",
    codes=(3,),
    seconds=2.0,
    left=(),
    gone_s=0.0,
    load=1.0,
    screen="step 1\ndistrun: FAILED: rank 3 on node1 failed first: exited with 3\n  log of rank 3",
    summary="",
)
TORCHRUN = "Root Cause (first observed failure):\n[0]:\n  rank      : {}\n  exitcode  : {}\n"


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, []),
        ({"codes": (1,)}, ["exit code 1, not 3"]),
        ({"codes": (None,)}, ["no end within 28 s"]),
        ({"left": ("sleep 9",)}, ["left behind: sleep 9"]),
        ({"screen": "rank 3: exited with 3\ndistrun: NODE LOST: node1: exited with 3"},
         ["does not name rank 3"]),
        ({"screen": "distrun: FAILED: rank 3 on node1 failed first: exited with 4"},
         ["does not say 'exited with 3'"]),
    ],
)  # fmt: skip
def test_the_judge_sees_each_sentence_that_does_not_hold(
    changes: dict[str, Any], wrong: list[str]
) -> None:
    (case,) = (case for case in CASES if case.id == RIGHT.case)
    assert wrong_with(case, replace(RIGHT, **changes)) == wrong


@pytest.mark.parametrize(
    ("screen", "names"),
    [
        ("", "names nobody"),
        (TORCHRUN.format(3, 3), "names rank 3"),
        (TORCHRUN.format(3, 1), "names rank 3, not why"),
        (TORCHRUN.format(3, 3) + TORCHRUN.format(0, 1), "names ranks 3 and 0, wrong"),
    ],
)
def test_the_judge_reads_whom_torchrun_blames(screen: str, names: str) -> None:
    (case,) = (case for case in CASES if case.id == RIGHT.case)
    assert torchrun_names(case, replace(RIGHT, by="torchrun", screen=screen)) == names
