"""Memory against what others have measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distrun.estimate import formula
from distrun.estimate.layout import Layout, Recompute, Step, Training
from distrun.estimate.presets import preset
from distrun.estimate.shape import Shape
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


@pytest.mark.parametrize(
    ("recompute", "chunks", "gib", "limit"),
    [("full", 8, 24.9, 0.03), ("none", 1, 60.0, 0.04)],
    ids=["recompute and chunked loss", "packed"],
)
def test_torchtune_on_one_gpu(recompute: Recompute, chunks: int, gib: float, limit: float) -> None:
    """Its README: Llama 3.2 3B, micro-batch 2 x 4096; how it packs is not modelled."""
    shape = Shape(28, 3072, 24, 8, 128, 8192, 128256, tied=True)
    formats = replace(preset("torchtune"), chunks=chunks)
    step = Step(4096, 2, recompute=recompute)
    work = formula.work(Training(shape, Layout(), formats, step))
    assert work.allocated / GIB == pytest.approx(gib, rel=limit)
