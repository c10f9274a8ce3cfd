"""Which checkpoint a run goes on from: the newest by time that is whole, of the right run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from distrun.dcp import choose
from distrun.dcp.choose import candidates, committed, drop_old, newest_good
from distrun.dcp.metadata import CheckpointError
from distrun.env import RUN_DIR
from tests.unit.dcp import save_checkpoint

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a directory like a checkpoint's, finished at a time that the test says."""

    def make(step: int, at_s: int, *, name: str = "", run: str = "") -> Path:
        path = tmp_path / (name or f"step-{step:08d}")
        path.mkdir()
        (path / "manifest.json").write_text(json.dumps({"step": step, "run": run}))
        os.utime(path, (at_s, at_s))
        return path

    return make


def test_the_newest_is_the_last_that_was_finished_not_that_of_the_highest_step(
    tmp_path: Path, make: Make
) -> None:
    """A directory may hold later steps of an earlier run."""
    old, new, newest = make(900, at_s=100), make(10, at_s=200), make(20, at_s=300)
    assert committed(tmp_path) == [old, new, newest]
    drop_old(tmp_path, 2)
    assert committed(tmp_path) == [new, newest]


def test_of_those_that_a_coarse_clock_gives_one_time_the_later_step_is_newer(
    tmp_path: Path, make: Make
) -> None:
    paths = [make(step, at_s=100) for step in (9, 10, 11)]
    assert committed(tmp_path) == paths


def test_what_is_not_finished_is_no_checkpoint(tmp_path: Path, make: Make) -> None:
    kept = make(5, at_s=100)
    make(6, at_s=200, name="step-00000006.partial")
    make(7, at_s=200, name="step-x")
    make(8, at_s=200, name="other-00000008")
    replaced = make(5, at_s=50, name="step-00000005.replaced")
    assert committed(tmp_path) == [replaced, kept]
    assert committed(tmp_path / "nowhere") == []


@pytest.mark.parametrize("keep", [1, 2, 3, 9])
def test_as_many_are_kept_as_are_wanted(tmp_path: Path, make: Make, keep: int) -> None:
    paths = [make(step, at_s=step) for step in range(1, 5)]
    drop_old(tmp_path, keep)
    assert committed(tmp_path) == paths[-keep:]


def test_a_half_written_or_damaged_one_is_passed_over_and_told(tmp_path: Path) -> None:
    paths = [tmp_path / f"step-{step:08d}" for step in (1, 2, 3)]
    for step, path in enumerate(paths, 1):
        save_checkpoint(path, step, {"model.weight": torch.ones(3)})
        os.utime(path, (step, step))
    (paths[2] / "rank-00000.safetensors").write_bytes(b"half")
    partial = tmp_path / "step-00000004.partial"
    shutil.copytree(paths[0], partial)
    found, problems = newest_good(committed(tmp_path))
    assert found == paths[1]
    assert len(problems) == 1 and "step-00000003" in problems[0]
    for path in paths:
        (path / "manifest.json").unlink()
    found, problems = newest_good(committed(tmp_path))
    assert found is None and len(problems) == 3


@pytest.mark.parametrize(
    ("wanted", "restarts", "found"),
    [
        ("auto", "0", ["own", "foreign"]),
        ("none", "0", []),
        ("given", "0", ["given"]),
        ("auto", "1", ["own", "foreign"]),
        ("none", "1", ["own"]),  # a world that the launcher has restarted
        ("given", "1", ["given", "own"]),
    ],
)
def test_a_restarted_world_goes_on_from_what_its_own_run_has_saved(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    wanted: str, restarts: str, found: list[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
    names = {make(1, 100, run="r1"): "own", make(2, 200, run="r2"): "foreign"}
    paths = candidates(wanted, tmp_path, "r1")
    assert [names.get(path, str(path)) for path in paths] == found


def test_where_checkpoints_are_and_whose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN_DIR, raising=False)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert choose.place_of("") == (None, "")
    assert choose.place_of("kept") == (Path("kept"), "")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job7")
    assert choose.place_of("kept") == (Path("kept"), "job7")
    monkeypatch.setenv(RUN_DIR, "/runs/r1")
    assert choose.place_of("") == (Path("/runs/r1/checkpoints"), "/runs/r1")
    assert choose.place_of("kept") == (Path("kept"), "/runs/r1")


def test_settings_that_differ_are_told_and_new_ones_are_not(tmp_path: Path, make: Make) -> None:
    path = make(1, 100)
    manifest = {"step": 1, "settings": {"lr": 0.1, "clip": 1.0, "gone": 5}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    here = {"lr": 0.1, "clip": 2.0, "new": 3}
    assert choose.differing(path, here) == ["clip was 1.0, is 2.0"]
    assert choose.differing(tmp_path / "nowhere", here) == []


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"a": (2, 3), "b": ()}, None),
        ({"a": (3, 2), "b": ()}, "a is 3x2 there, 2x3 here"),
        ({"a": (2, 3)}, "b is absent there, a scalar here"),
        ({"a": (2, 3), "b": (), "c": (1,)}, "c is 1 there, absent here"),
    ],
)
def test_another_model_is_refused_by_its_first_tensor(
    there: dict[str, tuple[int, ...]], said: str | None
) -> None:
    here: dict[str, tuple[int, ...]] = {"a": (2, 3), "b": ()}
    if said is None:
        choose.require_same_model(Path("p"), here, there)
        return
    with pytest.raises(CheckpointError, match=said):
        choose.require_same_model(Path("p"), here, there)
