"""Memory against what others have measured."""

from __future__ import annotations

import pytest

from distrun.estimate import formula
from tests.unit.estimate.published import of_memory, rows

GIB = 2**30
LIMITS = {"allocated": 0.03, "reserved": 0.06}


@pytest.mark.parametrize("row", rows("memory.csv"), ids=lambda row: "-".join(row.values()))
def test_the_peak_is_within_the_band_of_the_published_row(row: dict[str, str]) -> None:
    work = formula.work(of_memory(row))
    nbytes = {"allocated": work.allocated, "reserved": work.reserved_nbytes}[row["metric"]]
    assert nbytes / GIB == pytest.approx(float(row["gib"]), rel=LIMITS[row["metric"]])


def test_the_reserved_bytes_are_never_below_the_allocated() -> None:
    for row in rows("memory.csv"):
        work = formula.work(of_memory(row))
        assert work.reserved_nbytes >= work.allocated
