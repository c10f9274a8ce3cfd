"""A checkpoint of one layout goes on under any other, to the last digits of float64."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipes.curves import Case, Log, Settings, logged

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("warm_ranks"),
    pytest.mark.timeout(300),
]

STEPS, SAVED = 4, 2
SETTINGS: Settings = {"steps": STEPS, "batch_size": 8, "seq_len": 16, "warmup_steps": 1}
SETTINGS |= {"precision": "float64", "eval_every": SAVED, "eval_batches": 1}
LAYOUTS: dict[str, tuple[int, str, Settings]] = {
    "single": (1, "single", {}),
    "ddp 2": (2, "ddp_gpt", {}),
    "zero1 2": (2, "zero1", {}),
    "fsdp 2": (2, "fsdp", {}),
    "fsdp 2, ZeRO-2": (2, "fsdp", {"reshard": False}),
    "tp 2": (2, "tp", {}),
    "pp 2": (2, "pp", {}),
    "pp 2, interleaved": (2, "pp", {"flow": "interleaved"}),
    "cp 2": (2, "cp", {}),
    "hsdp 2x2": (4, "fsdp", {"replicate": 2}),
    "fsdp 2 x tp 2": (4, "fsdp_tp", {}),
    "pp 2 x fsdp 2": (4, "pp", {"beside": "fsdp"}),
}


def run_all(cases: dict[str, Case]) -> dict[str, Log]:
    """Train cases, which their layout's name begins, with one start of the ranks a world size."""
    found: dict[str, Log] = {}
    for ranks in (1, 2, 4):
        mine = [c for layout, c in cases.items() if LAYOUTS[layout.partition("/")[0]][0] == ranks]
        found |= logged(mine, ranks)
    return found


def case_of(name: str, **more: object) -> Case:
    _, recipe, settings = LAYOUTS[name.partition("/")[0]]
    return Case(name, recipe, SETTINGS | settings | more)


@pytest.mark.thorough  # tests/recipes/test_resume.py loads some pairs
def test_what_any_layout_saves_any_other_loads(tmp_path: Path) -> None:
    """Weights by the loss that comes next; averages of the optimizer by the one after it."""
    saving = {"save": True, "checkpoint_every": SAVED, "keep": 2}
    savers = {n: case_of(n, checkpoint_dir=str(tmp_path / n), **saving) for n in LAYOUTS}
    whole = run_all(savers)
    pairs = {("single", name) for name in LAYOUTS} | {(name, "single") for name in LAYOUTS}
    names = list(LAYOUTS)
    pairs |= set(zip(names, [*names[1:], names[0]], strict=True))
    loads = {}
    for loader, saver in sorted(pairs):
        path = tmp_path / saver / f"step-{SAVED:08d}"
        loads[f"{loader}/{saver}"] = case_of(f"{loader}/{saver}", resume=str(path))
    expected = whole["single"]
    wrong = {}
    for name, log in (whole | run_all(loads)).items():
        first = 1 if name in whole else SAVED + 1
        for key, steps in {"loss": range(first, STEPS + 1), "validation_loss": [STEPS]}.items():
            off = max(abs(log[key][step] - expected[key][step]) for step in steps)
            if not off <= 1e-12:
                wrong[f"{name}: {key}"] = off
        assert min(log["loss"]) == first
    assert wrong == {}
    assert len(loads) >= 3 * len(LAYOUTS) - 3


def test_what_one_process_saves_three_axes_load(tmp_path: Path) -> None:
    saving = {"save": True, "checkpoint_every": SAVED, "checkpoint_dir": str(tmp_path)}
    expected = logged([case_of("single", **saving)], 1)["single"]
    resume = {"resume": str(tmp_path / f"step-{SAVED:08d}")}
    (found,) = logged([Case("3d", "pp_fsdp_tp", SETTINGS | resume)], 8, 250).values()
    for key in ("loss", "validation_loss"):
        assert found[key][STEPS] == pytest.approx(expected[key][STEPS], abs=1e-12)
    assert min(found["loss"]) == SAVED + 1
