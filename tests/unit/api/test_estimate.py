"""An estimate puts script, GPUs and measurements together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from distrun.api.advised import advise, launch_words
from distrun.api.calibration import curves
from distrun.api.estimate import Asked, as_json, estimate
from distrun.errors import UsageError
from distrun.spec.estimate_script import read_script

RECIPES = Path(__file__).parents[3] / "recipes"
GIB = 2**30


def asked(recipe: str, flags: str, gpus: str | None = "1x8:h100", **more: Any) -> Asked:
    return Asked(words=(str(RECIPES / f"{recipe}.py"), *flags.split()), gpus=gpus, **more)


LAYOUTS = [
    ("single", "", "1:h100", {"data": 1}),
    ("ddp_gpt", "", "2x4:h100", {"data": 8}),
    ("zero1", "", "8:h100", {"data": 8}),
    ("fsdp", "--replicate 2", "8:h100", {"replicate": 2, "shard": 4}),
    ("tp", "--no-tied", "4:h100", {"tp": 4}),
    ("fsdp_tp", "--tp 4", "2x8:h100", {"shard": 4, "tp": 4}),
    ("pp", "--pp 4", "8:h100", {"pp": 4, "data": 2}),
    ("pp", "--pp 2 --beside fsdp --flow interleaved", "8:h100", {"pp": 2, "data": 4}),
    ("pp_fsdp_tp", "", "8:h100", {"pp": 2, "shard": 2, "tp": 2}),
    ("cp", "--cp 4 --seq-len 1024", "8:h100", {"data": 2, "cp": 4}),
    ("moe", "", "4:h100", {"ep": 4}),
]


@pytest.mark.parametrize(("recipe", "flags", "gpus", "mesh"), LAYOUTS)
def test_every_recipe_of_the_gpt_is_known_by_its_settings(
    recipe: str, flags: str, gpus: str, mesh: dict[str, int]
) -> None:
    found = estimate(asked(recipe, f"--size tiny {flags}", gpus))
    assert dict(found.plan.mesh) == mesh
    assert found.found.memory.verdict == "fits"
    axes = {one.axis for one in found.found.work.collectives}
    assert axes <= {*mesh, "world"}
    json.dumps(as_json(found))  # nothing in it that JSON does not have


def test_a_renamed_copy_of_a_recipe_is_known_too(tmp_path: Path) -> None:
    copy = tmp_path / "my train.py"
    copy.write_text((RECIPES / "fsdp.py").read_text())
    (tmp_path / "model.py").write_text((RECIPES / "model.py").read_text())
    found = estimate(Asked(words=(str(copy), "--size", "tiny"), gpus="4:h100"))
    assert (found.name, dict(found.plan.mesh)) == ("my train.py", {"replicate": 1, "shard": 4})


def test_a_batch_that_is_not_given_is_one_sequence_a_rank() -> None:
    found = estimate(asked("fsdp", "--size 124M", "8x8:h100"))
    assert any("--batch-size 64" in note for note in found.notes)
    assert found.plan.training.step.rows == 1


@pytest.mark.parametrize(
    ("recipe", "flags", "gpus", "message"),
    [
        ("single", "", "2:h100", "trains on 1 rank, not on 2"),
        ("fsdp", "--batch-size 12", "8:h100", "--batch-size 12 does not divide among 8 ranks"),
        ("fsdp", "--replicate 3", "8:h100", "replicate 3 needs a multiple of 3 ranks"),
        ("fsdp", "--size 9B", "8:h100", "'9B' is none of tiny"),
        ("tp", "--size 124M", "4:h100", "one matrix"),
        ("pp", "--accumulate 1", "2:h100", "--accumulate 1 is below the 2 stages"),
        ("moe", "--experts 6", "4:h100", "experts 6 does not divide among 4 ranks of ep"),
        ("ddp", "", "4:h100", "has no `class Config"),
    ],
)
def test_what_the_recipe_would_refuse_is_refused(
    recipe: str, flags: str, gpus: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        estimate(asked(recipe, flags, gpus))


def test_days_hours_and_cost_follow_from_the_step() -> None:
    found = estimate(asked("fsdp", "--size 1.5B", tokens=1e12, price=2.0))
    assert found.tokens_per_s and found.days and found.gpu_hours and found.cost
    assert found.days == pytest.approx(1e12 / found.tokens_per_s / 86400)
    assert found.cost == pytest.approx(found.days * 24 * 8 * 2)


def test_without_a_kind_there_are_memory_and_traffic_alone() -> None:
    found = estimate(asked("fsdp", "--size 8B", "8x8"))
    assert found.found.time is None and found.found.memory.verdict is None
    assert found.found.work.collectives


@pytest.mark.parametrize(("recipe", "has"), [("fsdp", True), ("fsdp_tp", False)])
def test_offload_is_a_remedy_where_the_script_has_the_flag(recipe: str, has: bool) -> None:
    flags = "--size 8B --seq-len 4096 --precision bfloat16 --batch-size 16"
    found = estimate(asked(recipe, flags, "1x8:a100-40"))
    assert any(one.name == "--offload" for one in found.remedies) is has


def test_what_does_not_fit_comes_with_remedies_and_their_price() -> None:
    found = estimate(asked("ddp_gpt", "--size 8B --precision bfloat16"))
    assert found.found.memory.verdict == "does not fit"
    first = found.remedies[0]
    assert first.memory.verdict == "fits" and first.slower > 0
    assert "FSDP over 8" in first.name
    assert all(one.memory.device < found.found.memory.device for one in found.remedies)


# --- what was measured -------------------------------------------------------


def make_run(directory: Path, words: Sequence[str], step_s: float, steps: int = 10) -> Path:
    program = {"script": words[0], "args": list(words[1:])}
    record = {"nnodes": 1, "nproc_per_node": 8, "plan": {"program": program}}
    directory.mkdir()
    (directory / "run.json").write_text(json.dumps(record))
    lines = [
        json.dumps(
            {"step": n, "tokens": 1000.0, "tokens_per_s": 1000.0 / (step_s * (1 + 9 * (n < 2)))}
        )
        for n in range(steps)
    ]
    (directory / "metrics.jsonl").write_text("\n".join([*lines, '{"validation_loss": 1.0}']))
    return directory


def test_an_anchor_scales_the_step_and_narrows_the_band(tmp_path: Path) -> None:
    small, large = "--size 350M --batch-size 8", "--size 1.5B --batch-size 64"
    plain, other = estimate(asked("fsdp", small)), estimate(asked("fsdp", large))
    assert plain.found.time and other.found.time
    words = [str(RECIPES / "fsdp.py"), *small.split()]
    run = make_run(tmp_path / "run", words, 1.3 * plain.found.time.total)
    anchored = estimate(asked("fsdp", large, anchor=run))
    assert anchored.found.time
    assert anchored.found.time.total == pytest.approx(1.3 * other.found.time.total)
    assert (other.found.time.band, anchored.found.time.band) == (0.2, 0.1)


def test_an_anchor_that_cannot_serve_is_refused(tmp_path: Path) -> None:
    words = [str(RECIPES / "fsdp.py"), "--size", "350M", "--batch-size", "8"]
    short = make_run(tmp_path / "short", words, 1.0, steps=3)
    absurd = make_run(tmp_path / "absurd", words, 1e4)
    for run, message in (
        (tmp_path, "is not the directory of a run"),
        (short, "has 3 steps with tokens_per_s, fewer than 4"),
        (absurd, "a step took 1e"),
    ):
        with pytest.raises(UsageError, match=message):
            estimate(asked("fsdp", "--size 350M", anchor=run))
    (short / "metrics.jsonl").write_text("[]\n{")
    with pytest.raises(UsageError, match="has 0 steps"):
        estimate(asked("fsdp", "--size 350M", anchor=short))


def make_report(path: Path, backend: str = "nccl", time_s: float = 1e-3) -> Path:
    row = {
        "op": "all_gather",
        "place": "out",
        "nbytes": 1 << 26,
        "count": 1,
        "dtype": "float32",
        "redop": None,
        "root": None,
        "iterations": 20,
        "min_s": time_s,
        "p50_s": time_s,
        "p95_s": time_s,
        "p99_s": None,
        "max_s": time_s,
        "mad_s": 0.0,
        "cv": 0.0,
        "noisy": False,
        "repeated": False,
        "algbw": None,
        "busbw": None,
        "best_busbw": None,
        "wire": None,
        "wrong": None,
        "overlap": None,
        "host_p50_s": None,
        "times_s": [],
    }
    ranks = [
        {"rank": n, "node": 0, "host": "a", "device": "NVIDIA H100", "pid": 1} for n in range(8)
    ]
    report = {
        "schema": 1,
        "started_at": 0.0,
        "complete": True,
        "backend": backend,
        "world_size": 8,
        "nnodes": 1,
        "ranks": ranks,
        "versions": {},
        "environment": {},
        "definitions": {},
        "request": {"ops": ["all_gather"], "sizes": [1 << 26]},
        "rows": [row],
        "models": [],
        "skipped": [],
        "pairs": None,
        "stragglers": None,
    }
    path.write_text(json.dumps(report))
    return path


def test_a_slow_measured_curve_makes_the_step_longer(tmp_path: Path) -> None:
    flags = "--size 1.5B --batch-size 8"
    plain = estimate(asked("fsdp", flags))
    slow = estimate(asked("fsdp", flags, calibrate=make_report(tmp_path / "b.json", time_s=0.5)))
    assert plain.found.time and slow.found.time
    assert slow.found.time.hidden > 10 * plain.found.time.hidden
    assert "all_gather of 8 ranks on 1 nodes" in slow.sources["curves"]


def test_a_noisy_row_counts_where_its_size_has_no_other_and_is_told(tmp_path: Path) -> None:
    path = make_report(tmp_path / "b.json", time_s=0.2)
    report = json.loads(path.read_text())
    (row,) = report["rows"]
    report["rows"] = [
        {**row, "noisy": True, "p50_s": 0.1},  # faster, but its size has a quiet one
        row,
        {**row, "noisy": True, "nbytes": 1 << 27, "p50_s": 0.7},
    ]
    path.write_text(json.dumps(report))
    (curve,), told = curves(path, None)
    assert curve.points == ((1 << 26, 0.2), (1 << 27, 0.7))
    assert told.endswith("2 of 3 rows are noisy")


def test_a_report_of_other_hardware_is_refused(tmp_path: Path) -> None:
    report = make_report(tmp_path / "bench.json", backend="gloo")
    with pytest.raises(UsageError, match="was measured with gloo on NVIDIA H100, not on h100"):
        estimate(asked("fsdp", "--size 124M", calibrate=report))
    nccl = make_report(tmp_path / "nccl.json")
    with pytest.raises(UsageError, match="nccl"):
        estimate(asked("fsdp", "--size tiny", "8:cpu", calibrate=nccl))


# --- advice ------------------------------------------------------------------


def test_the_best_layout_fits_is_fastest_and_runs_as_printed() -> None:
    flags = "--size 8B --no-tied --seq-len 4096 --precision bfloat16 --batch-size 64 --lr 1e-4"
    found, advice = advise(asked("fsdp", flags, "2x8:h100"))
    winner = advice.winner
    assert winner is not None and winner.fits
    assert all(winner.time.total <= row.time.total for row in advice.rows if row.fits)
    assert all(row.why for row in advice.rows if row is not winner)
    words = launch_words(found, winner)
    assert words[:6] == ["distrun", "launch", "--nodes", "2", "--nproc-per-node", "8"]
    assert words[words.index("--lr") + 1] == "0.0001"
    again = estimate(Asked(words=tuple(words[6:]), gpus="2x8:h100"))
    assert again.found.time
    assert again.found.time.total == pytest.approx(winner.time.total)
    assert again.plan.training.layout == winner.candidate.plan.training.layout
    assert read_script(Path(words[6]))


def test_the_reasons_of_the_losers_are_told() -> None:
    flags = "--size 8B --seq-len 4096 --precision bfloat16 --batch-size 64"
    _, advice = advise(asked("fsdp", flags, "4x4:h100"))
    why = {row.candidate.family: row.why for row in advice.rows}
    assert "does not fit by" in why["ddp"]
    assert "tp across nodes" in why["tp 8"]


def test_where_nothing_fits_there_is_no_winner() -> None:
    _, advice = advise(asked("fsdp", "--size 8B --batch-size 2", "2:4090"))
    assert advice.winner is None
    assert advice.rows and all("does not fit" in row.why for row in advice.rows)


def test_advice_needs_a_kind_of_gpu() -> None:
    with pytest.raises(UsageError, match="--best needs the kind"):
        advise(asked("fsdp", "--size tiny", "2x8"))
