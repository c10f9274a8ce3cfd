"""Whatever fault a training run meets: the documented exit code, who and why, and nothing left.

By default a part of the table is launched, on one node and on two emulated ones. All of it, with
the seconds from fault to exit, and with torchrun beside it: `python -m tests.faults`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cases import CASES, Case
from tests.faults.judge import wrong_with
from tests.faults.run import measure
from tests.faults.running import ONE, TWO, Layout
from tests.faults.settings import NotHere

LAUNCHES = [
    pytest.param(
        case,
        layout,
        id=f"{case.id}-{layout.id}",
        marks=[pytest.mark.xfail(reason=case.open, strict=True)] if case.open else (),
    )
    for case in CASES
    for layout in (ONE, TWO)
    if layout in case.layouts
]


@pytest.mark.timeout(240)
@pytest.mark.default_cases(6)
@pytest.mark.parametrize(("case", "layout"), LAUNCHES)
def test_a_fault_ends_a_run_with_its_code_and_its_cause_or_the_run_goes_on(
    case: Case, layout: Layout, tmp_path: Path
) -> None:
    try:
        measured = measure(case, layout, "distrun", tmp_path, None)
    except NotHere as reason:
        pytest.skip(str(reason))
    assert not wrong_with(case, measured), measured.screen
