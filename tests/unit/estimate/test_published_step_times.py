"""Step times against what others have measured; the constants were fitted on 8 GPUs alone."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import pytest

from distrun.estimate.kinds import KINDS, Kind
from tests.unit.estimate.published import error_of_step, rows

ROWS = rows("step_times.csv")
FITTED = ("h100", "a100-80", "a100-40")
LARGE = [row for row in ROWS if int(row["gpus"]) > 8]
ODD = ("1b", "a100-40", "32")
"""18 % slower than the rows of 16 and 64 GPUs on both sides of it: no model that is smooth in the
number of GPUs predicts all three."""


def _of(kind: str, gpus: int) -> list[dict[str, str]]:
    return [r for r in ROWS if r["kind"] == kind and (int(r["gpus"]) > 8) == (gpus > 8)]


@pytest.mark.parametrize("row", LARGE, ids=lambda row: "-".join(row.values()))
def test_a_step_on_16_to_64_gpus_is_within_20_percent(row: dict[str, str]) -> None:
    assert abs(error_of_step(row)) < 0.20


@pytest.mark.parametrize("kind", FITTED)
def test_the_mean_error_on_16_to_64_gpus_is_below_10_percent(kind: str) -> None:
    assert mean(abs(error_of_step(row)) for row in _of(kind, 16)) < 0.10


def _anchors(row: dict[str, str]) -> list[dict[str, str]]:
    """Return other rows of the model on this kind of GPU, that with the most similar step first."""
    others = [
        other
        for other in ROWS
        if other is not row
        and all(other[name] == row[name] for name in ("model", "kind", "seq_len", "recompute"))
        and (other["model"], other["kind"], other["gpus"]) != ODD
    ]
    return sorted(others, key=lambda other: abs(int(other["rows"]) - int(row["rows"])))


ANCHORED = [
    row for row in LARGE if _anchors(row) and (row["model"], row["kind"], row["gpus"]) != ODD
]


@pytest.mark.parametrize("row", ANCHORED, ids=lambda row: "-".join(row.values()))
def test_a_step_anchored_to_one_of_the_same_model_is_within_10_percent(
    row: dict[str, str],
) -> None:
    anchored = (1 + error_of_step(row)) / (1 + error_of_step(_anchors(row)[0])) - 1
    assert abs(anchored) < 0.10


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("name", ["matmul", "half_dim", "attention"])
def test_the_constants_are_those_that_fit_rows_of_8_gpus_best(kind: str, name: str) -> None:
    def squares(one: Kind) -> float:
        return sum(error_of_step(row, one) ** 2 for row in _of(kind, 8))

    fitted = KINDS[kind]
    changed = [replace(fitted, **{name: getattr(fitted, name) * f}) for f in (0.93, 1.07)]
    assert all(squares(one) > squares(fitted) for one in changed)
