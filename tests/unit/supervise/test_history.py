"""What an attempt has lost is known when the next one begins."""

from __future__ import annotations

from typing import Any

import pytest

from distrun.supervise.history import _amend

FAILED = {"failure": "crash", "begun_at": 0, "last_step": 10, "step_s": 0.5, "useful_s": 0.0}


@pytest.mark.parametrize(
    ("attempts", "lost", "useful_s"),
    [
        ([FAILED], 4, 3.0),
        ([FAILED, {"failure": "crash", "last_step": None}], 4, 3.0),
        ([{**FAILED, "step_s": None}], 4, 0.0),
        ([{**FAILED, "failure": ""}], None, 0.0),
        ([{**FAILED, "last_step": "10"}], None, 0.0),
        ([{"failure": "crash", "last_step": 10}], 4, None),
        ([{**FAILED, "begun_at": -(10**400)}], 4, 0.0),
        ([{**FAILED, "step_s": float("inf")}], 4, 0.0),
        ([{**FAILED, "last_step": 10**400}], None, 0.0),
    ],
    ids=[
        *("failed", "one between", "one step", "ended well", "a foreign record", "an old record"),
        *("a great start", "an infinite step", "a great step"),
    ],
)
def test_an_attempt_has_lost_the_steps_behind_the_start_of_the_next_one(
    attempts: list[dict[str, Any]], lost: int | None, useful_s: float | None
) -> None:
    own = [dict(each) for each in attempts]
    _amend(own, begun=6)
    assert (own[0].get("lost_steps"), own[0].get("useful_s")) == (lost, useful_s)


def test_the_first_attempt_has_none_before_it() -> None:
    own: list[dict[str, Any]] = []
    _amend(own, begun=6)
    assert own == []
