"""Traces of Llama 3 8B against published memory: allocated within 3 %."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrun.estimate.depths import whole
from distrun.estimate.exchange import Answer, Trace
from distrun.estimate.trace import trace
from distrun.estimate.work import Work
from tests.test_architecture import ROOT
from tests.unit.estimate.published import rows

BAND = 0.03
ROWS = [row for row in rows("memory.csv") if (row["system"], row["tp"]) == ("kempnerforge", "1")]
"""Those that come out. The loop of llama.py needs 8 % more than the published one under TP, and its
reserved bytes are 7 % below torchtitan's."""
LAYERS = 4, 8, 32
"""Of the two traces and of the model."""


def traced(row: dict[str, str], layers: int) -> Work:
    flags = [f"--like={row['system']}", f"--layers={layers}"]
    flags += [
        f"--{name.replace('_', '-')}={row[name]}"
        for name in ("shard", "tp", "rows", "accumulate", "seq_len")
    ]
    script = Path(ROOT / "tests/scenarios/estimate/llama.py")
    ranks = int(row["shard"]) * int(row["tp"])
    return trace(script, flags, world_size=ranks, nproc_per_node=8)


def error(row: dict[str, str]) -> float:
    """Return traced by published memory, less 1."""
    few, more, all_of_them = LAYERS
    traces = [Trace(n, traced(row, n)) for n in (few, more)]
    work = whole(Answer(traces, all_of_them))
    return work.allocated / (float(row["gib"]) * 2**30) - 1


def check(row: dict[str, str]) -> None:
    assert abs(error(row)) < BAND


@pytest.mark.long
def test_a_published_row_comes_out() -> None:
    check(ROWS[0])


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", ROWS[1:], ids=lambda row: "-".join(row.values()))
def test_every_published_row_comes_out(row: dict[str, str]) -> None:
    check(row)
