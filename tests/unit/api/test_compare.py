"""What moved between two reports, and which reports cannot be compared."""

from __future__ import annotations

from typing import Any

import pytest

from distrun.api.bench_comm import Change, compare
from distrun.errors import UsageError
from distrun.spec.bench import BenchReport
from tests.unit.bench import a_report, a_row


def change(before: dict[str, Any], after: dict[str, Any], tolerance: float = 0.1) -> Change:
    """Return how one row compares with another."""
    (found,) = compare(a_report(a_row(**before)), a_report(a_row(**after)), tolerance)
    return found


@pytest.mark.parametrize(
    ("before_us", "after_us", "moved", "regressed"),
    [
        (100, 100, False, False),
        (100, 109, False, False),
        (100, 111, True, True),
        (100, 200, True, True),
        (100, 91.5, False, False),
        (111, 100, True, False),
        (100, 50, True, False),
    ],
)
def test_a_row_has_moved_beyond_the_tolerance_either_way_and_regressed_if_slower(
    before_us: float, after_us: float, moved: bool, regressed: bool
) -> None:
    found = change({"p50_s": before_us * 1e-6}, {"p50_s": after_us * 1e-6})
    assert found.ratio == pytest.approx(after_us / before_us)
    assert (found.judged, found.moved, found.regressed) == (True, moved, regressed)


@pytest.mark.parametrize(
    ("before_mad_us", "after_mad_us", "given", "tolerance"),
    [
        (1, 1, 0.1, 0.1),  # three times 1 % is below what was asked for
        (5, 1, 0.1, 0.15),
        (1, 10, 0.1, 0.3),
        (10, 5, 0.1, 0.3),
        (10, 10, 0.5, 0.5),
        (1, 1, 0.0, 0.03),
        (0, 0, 0.0, 0.0),
    ],
)
def test_the_tolerance_is_three_times_the_scatter_where_that_is_more(
    before_mad_us: float, after_mad_us: float, given: float, tolerance: float
) -> None:
    before, after = {"mad_s": before_mad_us * 1e-6}, {"mad_s": after_mad_us * 1e-6}
    assert change(before, after, given).tolerance == pytest.approx(tolerance)
    scattered = {**after, "p50_s": 100e-6 * (1 + tolerance) * 1.02, "mad_s": 0}
    if after_mad_us <= before_mad_us:  # then the tolerance stays, and 2 % more is too much
        assert change(before, scattered, given).regressed


def test_scatter_is_measured_against_each_rows_own_median() -> None:
    slow = {"p50_s": 1.0, "mad_s": 0.01}
    assert change(slow, {"p50_s": 0.5, "mad_s": 0.05}, 0.0).tolerance == pytest.approx(0.3)


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("after_us", [1, 100, 10_000])
def test_a_noisy_row_is_never_judged(before: bool, after: bool, after_us: float) -> None:
    found = change({"noisy": before}, {"noisy": after, "p50_s": after_us * 1e-6})
    assert (found.judged, found.moved, found.regressed) == (False, False, False)


def test_rows_are_matched_by_what_they_measured_whatever_their_order() -> None:
    rows = [
        a_row(),
        a_row(place="in"),
        a_row(nbytes=128),
        a_row(op="broadcast", redop=None, root=0),
        a_row(redop="max"),
        a_row(dtype="int32"),
    ]
    slower = [row.model_copy(update={"p50_s": 2 * row.p50_s}) for row in reversed(rows)]
    found = compare(a_report(*rows), a_report(*slower), 0.1)
    assert [each.after for each in found] == slower
    assert [each.before for each in found] == rows[::-1]
    assert all(each.ratio == 2 for each in found)


def test_a_row_that_only_one_report_has_is_left_out() -> None:
    before = a_report(a_row(), a_row(nbytes=128))
    after = a_report(a_row(nbytes=128), a_row(nbytes=256))
    assert [each.after.nbytes for each in compare(before, after, 0.1)] == [128]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (a_report(world_size=4), "world_size 2 and 4"),
        (a_report(nnodes=2), "nnodes 1 and 2"),
        (a_report(backend="nccl"), "backend gloo and nccl"),
        (a_report(mode="throughput"), "--mode latency and throughput"),
        (a_report(a_row(nbytes=128)), "the reports have no row in common"),
        (a_report(a_row(dtype="int32")), "the reports have no row in common"),
        (a_report(a_row(op="reduce")), "the reports have no row in common"),
    ],
)
def test_reports_that_say_nothing_of_one_another_are_refused(after: BenchReport, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        compare(a_report(), after, 0.1)
    assert said in raised.value.message
    assert raised.value.hint, f"no hint with {raised.value.message!r}"
