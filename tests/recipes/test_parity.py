"""Every layout trains as the plain loop does: the same losses and norms, step for step.

A factor on all gradients is what a wrong mean over ranks looks like, and AdamW all but cancels
it; so does clipping where it bites. With the clip between the smallest norm and the largest it
bites in some steps alone, and a factor of 1.001 moves the losses by 3e-5, where 1e-5 is
allowed. The norms move by 1e-3, where 1e-4 is. Every layout is run with that fault, too, in
float64, where four steps show it: the first two are clipped, which hides it.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch

from tests.recipes import reference
from tests.recipes.curves import Case, Settings, curves
from tests.recipes.reference import Curve, Rates, digits_curve, gpt_curve

Recipe = Callable[[str], ModuleType]

FAULT, CLIP = 1.001, 2.7
SETTINGS: Settings = {"batch_size": 8, "seq_len": 16, "warmup_steps": 5, "clip": CLIP}
SETTINGS |= {"eval_batches": 1, "log_every": 100}
MOE: Settings = SETTINGS | {"capacity_factor": 1.25}


class Standard(NamedTuple):
    """What is asked of a precision."""

    steps: int
    of_loss: float
    """How far a loss may be off."""
    of_norm: float
    """And a norm, relative to itself."""


STANDARDS = {"float32": Standard(20, 1e-5, 1e-4), "float64": Standard(6, 1e-12, 1e-12)}

LAYOUTS: dict[int, dict[str, tuple[str, Settings]]] = {
    1: {
        "single": ("single", SETTINGS),
        "single, 2 micro-batches": ("single", SETTINGS | {"accumulate": 2}),
        "fsdp_tp 1x1": ("fsdp_tp", SETTINGS | {"tp": 1}),
        "pp 1": ("pp", SETTINGS | {"pp": 1}),
        "moe 1": ("moe", MOE),
        "dp on digits": ("dp", {}),
    },
    2: {
        "ddp 2": ("ddp_gpt", SETTINGS),
        "ddp 2, 2 micro-batches": ("ddp_gpt", SETTINGS | {"accumulate": 2}),
        "zero1 2, 2 micro-batches": ("zero1", SETTINGS | {"accumulate": 2}),
        "fsdp 2": ("fsdp", SETTINGS),
        "fsdp 2, ZeRO-2": ("fsdp", SETTINGS | {"reshard": False, "accumulate": 2}),
        "fsdp 2, meta, 2 micro-batches": ("fsdp", SETTINGS | {"meta": True, "accumulate": 2}),
        "tp 2, 2 micro-batches": ("tp", SETTINGS | {"accumulate": 2}),
        "pp 2": ("pp", SETTINGS),
        "pp 2, interleaved": ("pp", SETTINGS | {"flow": "interleaved"}),
        "cp 2, 2 micro-batches": ("cp", SETTINGS | {"accumulate": 2}),
        "moe 2, 2 micro-batches": ("moe", MOE | {"accumulate": 2}),
        "ddp 2 on digits": ("ddp", {}),
    },
    4: {
        "ddp 4": ("ddp_gpt", SETTINGS),
        "hsdp 2x2": ("fsdp", SETTINGS | {"replicate": 2}),
        "tp 4": ("tp", SETTINGS),
        "fsdp_tp 2x2, logits whole": (
            "fsdp_tp",
            SETTINGS | {"accumulate": 2, "loss_parallel": False},
        ),
        "pp 4": ("pp", SETTINGS | {"pp": 4}),
        "pp 2 x ddp 2": ("pp", SETTINGS),
        "pp 2 x ddp 2, gpipe": ("pp", SETTINGS | {"flow": "gpipe"}),
        "pp 2 x ddp 2, interleaved": ("pp", SETTINGS | {"flow": "interleaved"}),
        "pp 2 x fsdp 2": ("pp", SETTINGS | {"beside": "fsdp"}),
        "pp 2 x fsdp 2, gpipe": ("pp", SETTINGS | {"beside": "fsdp", "flow": "gpipe"}),
        "pp 2 x fsdp 2, interleaved": (
            "pp",
            SETTINGS | {"beside": "fsdp", "flow": "interleaved"},
        ),
        "ddp 2 x cp 2": ("cp", SETTINGS),
        "ddp 4 on digits": ("ddp", {}),
    },
    8: {"pp 2 x fsdp 2 x tp 2": ("pp_fsdp_tp", SETTINGS)},
}
FAULTY_STEPS = 4


def disagreement(found: Curve, expected: Curve, precision: str) -> str:
    """Return by how much a curve is off, "" if that is allowed."""
    losses = zip(found.losses, expected.losses, strict=True)
    norms = zip(found.norms, expected.norms, strict=True)
    loss_off = max(abs(a - b) for a, b in losses)
    norm_off = max(abs(a / b - 1) for a, b in norms)
    _, of_loss, of_norm = STANDARDS[precision]
    if loss_off <= of_loss and norm_off <= of_norm:  # written so that NaN is off too
        return ""
    return f"losses are off by {loss_off:.2g}, norms by {norm_off:.2g}"


@pytest.fixture
def plain(recipe: Recipe) -> Callable[..., Curve]:
    """The plain loop, on the tokens and from the weights of a recipe."""

    def run(name: str, settings: Settings, scale: float = 1.0) -> Curve:
        alone = {"dp": "dp", "ddp": "dp", "moe": "moe"}.get(name, "single")
        made = recipe(alone).Config
        known = made.__dataclass_fields__
        return once(alone, made(**{k: v for k, v in settings.items() if k in known}), scale)

    @functools.cache  # most layouts share one
    def once(name: str, config: Any, scale: float) -> Curve:
        torch.set_num_threads(1)  # more would only wait for one another
        module = recipe(name)
        if name == "dp":
            data = module.load_digits(getattr(torch, config.precision))
            batches = [module.batch(step, config, data) for step in range(config.steps)]
            return digits_curve(batches, config.seed, config.lr, scale)
        windows, _ = module.open_text(config, module.Shard())
        model = module.build_model(config)
        rates = Rates(
            config.lr, config.warmup_steps, config.steps, config.min_lr, config.clip,
            config.weight_decay, config.beta2, scale,
        )  # fmt: skip
        batches = [windows[step] for step in range(config.steps)]
        if name == "moe":
            return gpt_curve(model, batches, rates, lambda: module.extras(model, config)[0])
        return gpt_curve(model, batches, rates)

    return run


def right_cases(ranks: int) -> list[Case]:
    few = {8: {"steps": 4}}.get(ranks, {})  # eight ranks on few cores
    return [
        Case(
            f"{name}, {precision}",
            recipe,
            settings | {"steps": standard.steps, "precision": precision} | few,
        )
        for name, (recipe, settings) in LAYOUTS[ranks].items()
        for precision, standard in STANDARDS.items()
    ]


def faulty_cases(ranks: int) -> list[Case]:
    few = {"steps": FAULTY_STEPS, "precision": "float64"}
    return [
        Case(f"{name}, x{FAULT}", recipe, settings | few, FAULT)
        for name, (recipe, settings) in LAYOUTS[ranks].items()
    ]


@pytest.mark.long
@pytest.mark.usefixtures("warm_ranks")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("ranks", LAYOUTS)
def test_every_layout_has_the_losses_of_the_plain_loop_and_shows_a_fault(
    plain: Callable[..., Curve], ranks: int
) -> None:
    right, faulty = right_cases(ranks), faulty_cases(ranks)
    found = curves([*right, *faulty], ranks, timeout_s=380)
    wrong = {}
    for case in right:
        expected = plain(case.recipe, case.settings)
        wrong[case.name] = disagreement(found[case.name], expected, case.settings["precision"])
    assert {name: off for name, off in wrong.items() if off} == {}
    for case in faulty:
        expected = plain(case.recipe, case.settings)
        losses_alone = Curve(found[case.name].losses, expected.norms)
        norms_alone = Curve(expected.losses, found[case.name].norms)
        assert disagreement(losses_alone, expected, "float64"), case.name
        assert disagreement(norms_alone, expected, "float64"), case.name


@pytest.mark.parametrize("recipe_name", ["single", "moe", "dp"])
@pytest.mark.parametrize("precision", STANDARDS)
def test_losses_alone_and_norms_alone_show_gradients_that_are_off_by_a_thousandth(
    plain: Callable[..., Curve], recipe_name: str, precision: str
) -> None:
    settings = SETTINGS if recipe_name != "dp" else {}
    settings = settings | {"steps": STANDARDS[precision].steps, "precision": precision}
    right, off = (plain(recipe_name, settings, scale) for scale in (1.0, FAULT))
    if recipe_name != "dp":
        assert min(right.norms) < CLIP < max(right.norms), "it has to bite in some steps alone"
    assert disagreement(Curve(off.losses, right.norms), right, precision)
    assert disagreement(Curve(right.losses, off.norms), right, precision)
    assert not disagreement(right, right, precision)


def test_the_plain_loop_shares_nothing_with_the_recipes() -> None:
    tree = ast.parse(Path(reference.__file__).read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names == {
        *("__future__", "math", "collections.abc", "typing"),
        *("torch", "torch.nn.functional"),
    }
