"""Runs side by side: what differs, since when, and how long their steps take."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from distrun.api.report import compare
from distrun.errors import UsageError
from distrun.report.compare import Comparison, compared
from distrun.report.facts import Facts, read_facts
from distrun.report.page import rendered
from tests.unit.report.made import made_run, step


def facts(tmp_path: Path, end: str, pace: float, losses: list[float], **fields: Any) -> Facts:
    metrics = [step(n, n * pace, loss=loss) for n, loss in enumerate(losses, 1)]
    run_id = f"20260101-000000-train-{end}"
    return read_facts(made_run(tmp_path, run_id=run_id, metrics=metrics, **fields))


def pair(tmp_path: Path, pace: float, losses: list[float], **fields: Any) -> Comparison:
    first = facts(tmp_path, "aaaa", 0.1, [3.0, 2.0, 1.0, 0.5])
    return compared([first, facts(tmp_path, "bbbb", pace, losses, **fields)])


def test_the_first_step_that_differs_is_named(tmp_path: Path) -> None:
    found = pair(tmp_path, 0.1, [3.0, 2.0, 1.25, 0.5, 0.25])
    assert found.sentences[0] == (
        "bbbb: its loss differs from that of aaaa since step 3 (1 and 1.25), by 0.25 at most"
    )
    (first,) = found.data["first_difference"]
    assert (first["step"], first["steps_compared"]) == (3, 4)


def test_a_loss_that_is_not_finite_differs_from_one_that_is(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    found = pair(tmp_path, 0.1, [3.0, 2.0, 1.0, nan])
    assert found.sentences[0] == (
        "bbbb: its loss differs from that of aaaa since step 4 (0.5 and nan)"
    )
    assert [row[1 + found.columns.index("last loss")] for row in found.rows] == ["0.5", "nan"]
    never = pair(tmp_path / "never", 0.1, [inf, inf, nan, nan])
    assert never.sentences[0].endswith("since step 1 (3 and inf)")


def test_equal_losses_are_said_to_be_equal(tmp_path: Path) -> None:
    found = pair(tmp_path, 0.1, [3.0, 2.0, 1.0, 0.5])
    assert found.sentences[0] == "bbbb: its loss is that of aaaa, in 4 steps"
    assert found.differences == []


def test_the_step_time_is_judged_by_its_spread(tmp_path: Path) -> None:
    slower = pair(tmp_path, 0.2, [3.0, 2.0, 1.0, 0.5])
    assert "2 times as long as those of aaaa, slower" in slower.sentences[1]
    spread = slower.data["runs"][1]["step_time_s"]
    assert spread.keys() == {"p25", "p50", "p75", "p95"}


def test_settings_versions_and_arguments_that_differ_are_listed(tmp_path: Path) -> None:
    plan = {
        "program": {"args": ["--lr", "0.1", "--compile"]},
        "settings": [{"name": "--nnodes", "value": "2"}, {"name": "--master-port", "value": "7"}],
        "nodes": [{"host": "other"}],
    }
    found = pair(tmp_path, 0.1, [1.0], plan=plan, versions={"torch": "9.9"})
    told = {row[0]: row[1:] for row in found.differences}
    assert told == {
        "version of torch": ["", "9.9"],
        "argument --lr": ["", "0.1"],
        "argument --compile": ["", "yes"],
        "--nnodes": ["", "2"],
        "hosts": ["node0", "other"],
    }


def test_the_page_has_both_curves_in_one_chart(tmp_path: Path) -> None:
    found = pair(tmp_path, 0.1, [3.0, 2.0, 1.5, 0.5], recipe="<b>.py")
    html = rendered("compare.html", found.variables)
    assert "<b>.py" not in html and "&lt;b&gt;.py" in html
    assert html.count('<path class="line c0"') == html.count('<path class="line c1"') == 2
    json.dumps(found.data)


def test_runs_without_a_loss_are_compared_too(tmp_path: Path) -> None:
    found = pair(tmp_path, 0.1, [])
    assert found.sentences == ["bbbb: no step has a loss in it and in aaaa too"]


def test_copies_of_a_run_are_told_apart_from_a_run_that_is_named_twice(tmp_path: Path) -> None:
    run = made_run(tmp_path, run_id="20260101-000000-train-aaaa", metrics=[step(1, 0.1, loss=3.0)])
    copy = shutil.copytree(run.path, tmp_path / "copy" / run.run_id)
    with pytest.raises(UsageError) as twice:
        compare([str(run.path), str(run.path)])
    assert str(twice.value).startswith(f"run {run.run_id} is named twice")
    with pytest.raises(UsageError) as copied:
        compare([str(run.path), str(copy)])
    assert str(copied.value).endswith(f"are copies of run {run.run_id}")
