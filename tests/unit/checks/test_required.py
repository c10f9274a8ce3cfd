"""What every launch requires of this user's limits."""

from __future__ import annotations

import pytest

from distrun.checks.required import require_open_files
from distrun.errors import MachineError


@pytest.mark.parametrize(
    ("nodes", "ranks", "limit"), [(2, 8, 1024), (256, 256, 1568), (256, 2048, -1)]
)
def test_a_run_whose_files_can_all_be_open_is_accepted(nodes: int, ranks: int, limit: int) -> None:
    require_open_files(nodes, ranks, limit, is_hard=True)


@pytest.mark.parametrize(
    ("nodes", "ranks", "limit", "needed"), [(256, 256, 1024, 1568), (256, 256, 1567, 1568)]
)
def test_a_run_with_too_many_files_is_refused_with_both_numbers(
    nodes: int, ranks: int, limit: int, needed: int
) -> None:
    with pytest.raises(MachineError) as refused:
        require_open_files(nodes, ranks, limit, is_hard=False)
    assert f"{nodes} nodes with {ranks} ranks need {needed} open files" in refused.value.message
    assert f"limit is {limit}" in refused.value.message
    assert refused.value.hint == f"ulimit -Sn {needed}"


def test_a_hard_limit_is_not_for_the_user_to_raise() -> None:
    with pytest.raises(MachineError) as refused:
        require_open_files(256, 256, 1024, is_hard=True)
    assert "limits.conf" in refused.value.hint
