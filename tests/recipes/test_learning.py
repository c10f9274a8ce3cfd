"""Recipes as they are run: under bare torchrun, to a model that has learned something."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.recipes.launching import RECIPES, run_python, torchrun

SMALL = ("--steps", 3, "--seq-len", 32, "--eval-batches", 1, "--log-every", 1)
WORLDS = {
    "ddp_gpt": 2,
    "zero1": 2,
    "fsdp": 2,
    "tp": 2,
    "fsdp_tp": 4,
    "pp": 2,
    "pp_fsdp_tp": 8,
    "cp": 2,
    "moe": 2,
}
pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize(("name", "nproc"), WORLDS.items())
def test_a_recipe_takes_three_steps_under_bare_torchrun(
    tmp_path: Path, name: str, nproc: int
) -> None:
    # whole logits come out of the model as a view, of which FSDP would warn
    more = ("--no-loss-parallel",) if name == "fsdp_tp" else ()
    run = torchrun(tmp_path, nproc, RECIPES / f"{name}.py", *SMALL, *more)
    assert run.code == 0, run.err
    losses = [float(x) for x in re.findall(r"^step \d/3  loss (\S+)", run.out, re.M)]
    assert len(losses) == 3
    assert 5 < losses[2] < losses[0] < 6  # log 256 = 5.55 is to know nothing
    assert re.search(r"^step 3/3  validation loss \d", run.out, re.M)
    assert "Traceback" not in run.err and "Warning" not in run.err
    assert list(tmp_path.iterdir()) == []  # outside of a run nothing is saved unasked


def test_the_gpt_learns_python_and_writes_some(tmp_path: Path) -> None:
    words = ("--steps", 300, "--seq-len", 64, "--lr", 6e-3, "--warmup-steps", 50, "--sample", 60)
    run = torchrun(tmp_path, 2, RECIPES / "ddp_gpt.py", *words)
    assert run.code == 0, run.err
    *_, last = re.findall(r"^step 300/300  validation loss (\S+)", run.out, re.M)
    assert float(last) < 2.2  # nats a byte
    written = run.out.rpartition(last)[2]
    assert len(written) > 40
    assert len(set(written)) < 60  # of 256 bytes those that source code is made of


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputing_activations_changes_no_loss(tmp_path: Path, recompute: str) -> None:
    plain = run_python(tmp_path, RECIPES / "single.py", *SMALL)
    again = run_python(tmp_path, RECIPES / "single.py", *SMALL, "--recompute", recompute)
    assert again.code == plain.code == 0, again.err
    assert again.losses == plain.losses != []


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_fewer_bits_learn_about_the_same(tmp_path: Path, precision: str) -> None:
    plain = run_python(tmp_path, RECIPES / "single.py", *SMALL)
    fewer = run_python(tmp_path, RECIPES / "single.py", *SMALL, "--precision", precision)
    assert fewer.code == plain.code == 0, fewer.err
    assert fewer.losses == pytest.approx(plain.losses, rel=5e-3)
    assert fewer.losses != plain.losses


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("fp16", ()),
        # 10 steps go uncompressed; more gradients than DDP's first bucket takes: on gloo two
        # buckets' messages cross in two runs of three of so many steps
        ("powersgd", ("--size", "small", "--batch-size", 4, "--steps", 30)),
    ],
)
def test_gradients_that_travel_in_fewer_bytes_teach_about_the_same(
    tmp_path: Path, hook: str, words: tuple[object, ...]
) -> None:
    plain = torchrun(tmp_path, 2, RECIPES / "ddp_gpt.py", *SMALL, *words)
    fewer = torchrun(tmp_path, 2, RECIPES / "ddp_gpt.py", *SMALL, *words, "--hook", hook)
    assert fewer.code == plain.code == 0, fewer.err
    assert fewer.losses[0] == plain.losses[0]  # before any gradient
    assert fewer.losses == pytest.approx(plain.losses, rel=0.15)
    assert fewer.losses != plain.losses


def test_a_trace_and_tensorboard_are_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    words = ("--profile", "traces/3.json", "--tensorboard", "board", "--steps", 6)
    run = run_python(tmp_path, RECIPES / "single.py", *SMALL, *words)
    assert run.code == 0, run.err
    names = {
        e["name"] for e in json.loads((tmp_path / "traces" / "3.json").read_text())["traceEvents"]
    }
    assert {"aten::mm", "ProfilerStep#3"} <= names
    (events,) = (tmp_path / "board").iterdir()
    assert b"validation_loss" in events.read_bytes()
