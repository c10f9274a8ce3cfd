"""A job that hangs is stopped with the rank at fault, its line, and what the others wait in.

By default a part of the table is launched: each fault here in one style of training, in turn on one
node and on two. All of it, or a part by name: `python -m benchmarks.hangs --by distrun`, with
torchrun beside it without `--by`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.others.launches import Layout
from tests.process.hang_cases import CASES, Case
from tests.process.hang_runs import launched, wrong_with

LAYOUTS = (Layout(1, 4), Layout(2, 2))
HANG_TIMEOUT_S = 3.0
DEFAULT = """
    ddp-sleep fsdp2-spin loop-spin_on_a_file ddp-read_in_c loop-read_in_c_with_the_gil
    loop-lock_twice ddp-loader_worker_sleeps loop-wait_for_a_command loop-stop_oneself
    loop-two_ranks_sleep loop-one_does_not_join ddp-leave_with_0 loop-leave_a_child
    ddp-barrier_on_some loop-swapped loop-other_root loop-other_shape fsdp2-send_alone
    loop-receive_from_each_other loop-ring_of_sends loop-barrier_in_except loop-gather_without_one
    ddp-monitored_barrier ddp-no_sync_on_one ddp-evaluates_with_gradients fsdp2-saves_alone
    loop-crossed_order loop-ring_of_groups loop-new_group_without_one loop-row_of_a_mesh
    loop-whole_tensor_on_one loop-pipeline loop-one_computes
    loop-one_is_in_one_long_call_with_the_gil
    ddp-one_is_in_one_long_call_after_a_call_that_was_overtaken
    loop-one_tokenises loop-one_writes_a_checkpoint loop-one_waits_for_a_loader_at_work
    loop-one_is_late_again_and_again loop-all_wait_for_data
"""
"""Ids of cases: each kind of answer, and each sign of life."""

pytestmark = [pytest.mark.timeout(200), pytest.mark.ci_cases(8)]


def launches() -> list[tuple[Case, Layout]]:
    by_id = {case.id: case for case in CASES}
    return [(by_id[name], LAYOUTS[n % 2]) for n, name in enumerate(DEFAULT.split())]


@pytest.mark.parametrize(
    ("case", "layout"), launches(), ids=[f"{case.id}-{layout}" for case, layout in launches()]
)
def test_the_verdict_names_who_is_at_fault_and_a_slow_job_goes_on(
    case: Case, layout: Layout, tmp_path: Path
) -> None:
    ended = launched(case, layout, tmp_path, hang_timeout_s=HANG_TIMEOUT_S)
    assert not wrong_with(case, ended), ended.screen


def test_the_right_answers_have_their_marks_in_the_scripts() -> None:
    for case in CASES:
        assert case.here or not case.at or case.ends == "well", case.id
        assert case.waiting or not case.waits_at, case.id
