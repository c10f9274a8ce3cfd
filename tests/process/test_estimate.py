"""`distrun estimate` as a user runs it: the verdict first, mistakes in a sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import only_run

Run = Callable[..., subprocess.CompletedProcess[str]]
RECIPES = Path(__file__).parents[2] / "recipes"
FSDP = str(RECIPES / "fsdp.py")
DIMS = "layers=32,dim=4096,heads=32,kv_heads=8,ffn=14336,vocab=128256"


def test_the_verdict_comes_first_and_options_may_stand_anywhere(distrun: Run) -> None:
    words = [FSDP, "--size", "8B", "--gpus", "8x8:h100", "--seq-len", "8192"]
    done = distrun("estimate", *words, "--precision", "bfloat16", "--tokens", "1e12", "--price=2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("fits: 7") and "a step takes 1." in lines[0]
    assert "± 20%" in lines[0]
    assert "8.84 B parameters on 8 nodes of 8 h100, shard 64" in lines[1]
    assert any(line.startswith("backward") and line.endswith("<- peak") for line in lines)
    assert any(line.startswith("training   1 T tokens in ") for line in lines)
    assert any("uncalibrated" in line for line in lines)


def test_what_does_not_fit_says_by_how_much_and_what_would_help(distrun: Run) -> None:
    done = distrun("estimate", FSDP, "--size", "8B", "--seq-len", "8192", "--gpus", "2:4090")
    assert done.returncode == 1
    assert done.stdout.startswith("DOES NOT FIT by ")
    assert "--offload" in done.stdout


@pytest.mark.parametrize("mode", ["none", "attention", "alternate", "selective", "full"])
def test_what_would_help_is_told_whatever_is_recomputed(distrun: Run, mode: str) -> None:
    words = ["--dims", DIMS, "--seq-len", "8192", "--rows", "16", "--recompute", mode]
    done = distrun("estimate", *words, "--gpus", "1x8:h100")
    assert (done.returncode, done.stderr) == (1, "")
    assert "what would give room" in done.stdout


def test_nobody_who_reads_is_not_told_as_no_fit() -> None:
    command = [sys.executable, "-m", "distrun", "estimate", FSDP, "--gpus", "1x8:h100"]
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as nobody:
        done = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (141, b"")


def test_no_torch_is_needed(distrun: Run, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('there is none')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    words = ["estimate", "fsdp", "--size", "124M", "--gpus", "8:a100-40"]
    done = distrun(*words, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr


def test_a_model_of_no_recipe_is_named_by_its_dimensions(distrun: Run) -> None:
    words = ["--preset", "torchtitan", "--seq-len", "8192", "--rows", "2", "--recompute"]
    done = distrun("estimate", *words, "alternate", "--dims", DIMS, "--gpus", "16x8:h100", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["mesh"]["shard"] == 128
    assert found["memory"]["reserved_nbytes"] / 2**30 == pytest.approx(67.0, rel=0.06)
    assert found["time_s"]["band"] == 0.2


def test_the_memory_is_drawn(distrun: Run, tmp_path: Path) -> None:
    picture = tmp_path / "a picture.svg"
    done = distrun("estimate", FSDP, "--size", "1.5B", "--gpus", "8:h100", "--svg", picture)
    assert done.returncode in (0, 1), done.stderr
    titles = [e.text for e in ElementTree.parse(picture).iter() if e.tag.endswith("title")]
    assert len(titles) == 3 * 6 and titles[0] == "parameters: 744 MiB"


def test_the_best_layout_comes_with_its_command(distrun: Run) -> None:
    words = [FSDP, "--size", "1.5B", "--precision", "bfloat16", "--batch-size", "16"]
    done = distrun("estimate", *words, "--gpus", "1x8:h100", "--best")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("best: ")
    (command,) = (line for line in done.stdout.splitlines() if line.startswith("distrun launch"))
    assert "--nproc-per-node 8" in command and "--size 1.5B" in command
    rows = [line for line in done.stdout.splitlines() if "GiB*" in line]
    assert len(rows) == 3, "the first three were traced"


def test_a_layout_in_which_the_recipe_fails_is_not_the_best(distrun: Run, tmp_path: Path) -> None:
    for recipe in RECIPES.glob("*.py"):
        shutil.copy(recipe, tmp_path)
    recipe = tmp_path / "ddp_gpt.py"
    text = recipe.read_text().replace(
        "    group = mesh.get_group(", "    assert 0, 'no'\n    group = ("
    )
    recipe.write_text(text)
    words = [tmp_path / "fsdp.py", "--size", "tiny", "--seq-len", "128", "--batch-size", "8"]
    done = distrun("estimate", *words, "--gpus", "1x8:h100", "--best")
    (failed,) = (line for line in done.stdout.splitlines() if line.startswith("ddp 8"))
    assert "fails: ddp_gpt.py:" in failed and "AssertionError: no" in failed
    assert not done.stdout.startswith("best: ddp 8")


WRONG = [
    ([FSDP, "--gpus", "8x8:h10"], "'h10'"),
    ([FSDP, "--gpus", "8x8;h100"], "is not NODESxGPUS:KIND"),
    ([FSDP, "--gpus", "7:h100", "--replicate", "2"], "needs a multiple of 2 ranks"),
    ([FSDP, "--batchsize", "8", "--gpus", "8:h100"], "has no flag '--batchsize'"),
    (["no such.py", "--gpus", "8:h100"], "does not exist"),
    ([str(RECIPES / "ddp.py"), "--gpus", "8:h100"], "has no `class Config"),
    (["--gpus", "8:h100"], "neither a script nor a model"),
    (["--dims", DIMS.replace("32", "9" * 30, 1), "--gpus", "8:h100"], "layers"),
    ([FSDP, "--gpus", "8:h100", "--calibrate", "none.json"], "cannot be read"),
    ([FSDP, "--gpus", "8:h100", "--anchor", "."], "is not the directory of a run"),
    ([FSDP, "--gpus", "8:h100", "--svg", "picture.png"], "has to end in .svg"),
    ([FSDP, "--gpus", "8:h100", "--tokens", "nan"], "is not a number above 0"),
    ([FSDP, "--best"], "--best needs the kind"),
    (["--dims", f"{DIMS},layers=3", "--gpus", "8:h100"], "layers twice: "),
    (["--dims", f"{DIMS},experts=8,chosen=9", "--gpus", "8:h100"], "is above experts=8"),
    (["--dims", f"{DIMS},kvheads=8", "--gpus", "8:h100"], "has no 'kvheads'"),
    (["--dims", DIMS.replace("32", "0", 1), "--gpus", "8:h100"], "layers '0'"),
    ([FSDP, "--gpus", "8:h100", "--price", "2"], "--price needs the tokens"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_a_mistake_is_one_sentence(distrun: Run, words: list[str], message: str) -> None:
    done = distrun("estimate", *words)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) <= 2 and not done.stdout


def test_a_launch_says_what_it_expects(distrun: Run) -> None:
    words = ["launch", "--no-check", "--estimate", "--dry-run", FSDP, "--size", "tiny"]
    done = distrun(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# expected: fits: ")


def test_what_was_expected_is_in_the_record(distrun: Run, tmp_path: Path) -> None:
    recipe = (str(RECIPES / "ddp_gpt.py"), "--steps", "2", "--eval-every", "0", "--no-save")
    done = distrun("launch", "--nproc-per-node", "2", "--estimate", *recipe)
    assert done.returncode == 0, done.stderr
    record = json.loads((only_run(tmp_path) / "run.json").read_text())
    assert record["prediction"].keys() == {"step_time_s"}, "on CPUs the process is measured"
    assert "s a step; distrun report compares" in distrun("show").stdout


@pytest.mark.parametrize("forced", [False, True])
def test_a_launch_that_cannot_fit_is_refused_unless_it_is_forced(
    distrun: Run, forced: bool
) -> None:
    force = ["--force"] if forced else []
    flags = ["--size", "8B", "--seq-len", "65536", "--batch-size", "8"]
    single = str(RECIPES / "single.py")
    done = distrun("launch", "--no-check", "--estimate", *force, "--dry-run", single, *flags)
    assert done.returncode == (0 if forced else 3)
    assert "DOES NOT FIT by" in (done.stdout if forced else done.stderr)
    assert forced or "--force starts it anyway" in done.stderr


def test_a_launch_of_an_unknown_script_cannot_be_estimated(distrun: Run, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print()")
    done = distrun("launch", "--no-check", "--estimate", "--dry-run", "train.py")
    assert done.returncode == 2 and "has no `class Config" in done.stderr
