"""The digits recipes as a user runs them: real processes under plain torchrun, and their parts."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from distrun.train.config import parse
from tests.recipes.curves import Case, curves
from tests.recipes.launching import RECIPES, Finished, run_python, torchrun

Recipe = Callable[[str], ModuleType]
EVERY = ("--log-every", 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Finished]:
    """Run a recipe once per (recipe, nproc, words); nproc 0 is plain python."""
    done: dict[tuple[object, ...], Finished] = {}

    def get(recipe: str, nproc: int, *words: object) -> Finished:
        key = (recipe, nproc, *words)
        if key not in done:
            cwd, script = tmp_path_factory.mktemp(recipe), RECIPES / f"{recipe}.py"
            run = torchrun(cwd, nproc, script, *words) if nproc else run_python(cwd, script, *words)
            assert run.code == 0, run.err
            done[key] = run
        return done[key]

    return get


# -- training ------------------------------------------------------------------------------


@pytest.mark.long
def test_the_accuracy_is_above_97_percent_and_the_same_for_any_number_of_ranks(
    trained: Callable[..., Finished],
) -> None:
    dp, one, four = (trained(name, n, *EVERY) for name, n in (("dp", 0), ("ddp", 0), ("ddp", 4)))
    for run in (dp, one, four):
        assert run.accuracy > 0.97
        assert len(run.losses) == 120
        assert run.losses[-1] < 0.1 < run.losses[0]
        assert "Traceback" not in run.err and "Warning" not in run.err
    assert four.losses == pytest.approx(one.losses, rel=1e-4)
    assert four.accuracy == one.accuracy
    assert dp.losses == pytest.approx(one.losses, rel=1e-5)
    assert four.out.splitlines()[0] == "world size 4: gloo on cpu"


def test_ranks_agree_when_the_last_batch_of_an_epoch_is_not_full(
    trained: Callable[..., Finished],
) -> None:
    words = ("--batch-size", 98, "--steps", 30, *EVERY)  # 1440 = 14 x 98 + 68
    one, two = trained("dp", 0, *words), trained("ddp", 2, *words)
    assert len(one.losses) == 30
    assert two.losses == pytest.approx(one.losses, rel=1e-4)
    assert two.accuracy == one.accuracy


@pytest.mark.usefixtures("warm_ranks")
def test_the_accuracy_does_not_depend_on_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    curves([Case(f"seed {seed}", "dp", {"seed": seed}) for seed in range(1, 6)], 1)
    found = re.findall(r"test accuracy (\S+) %", capsys.readouterr().out)
    assert len(found) == 5
    assert min(map(float, found)) > 96


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_on_one_device_dp_says_that_nothing_is_parallel(tmp_path: Path) -> None:
    said = run_python(tmp_path, RECIPES / "dp.py", "--steps", 1).out.splitlines()
    assert "DataParallel has one device (cpu): nothing runs in parallel" in said


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize("name", ["ddp", "ddp_gpt"])
def test_no_gloo_thread_outlives_the_process_group(tmp_path: Path, name: str) -> None:
    # One that does can take the GIL during the interpreter's exit: SIGABRT in a good run.
    script = tmp_path / "threads.py"
    script.write_text(
        "import sys, threading\n"
        f"sys.path.insert(0, {str(RECIPES)!r})\n"
        "from pathlib import Path\n"
        f"import {name} as recipe\n"
        "recipe.main()\n"
        "[t.join() for t in threading.enumerate() if t.name != 'MainThread']\n"  # as at exit
        "print([p.read_text() for p in Path('/proc/self/task').glob('*/comm')])\n"
    )
    saved = ("--checkpoint-dir", "kept")  # which has a process group of its own
    run = run_python(tmp_path, script, "--steps", 2, *saved)
    assert run.code == 0, run.err
    assert list((tmp_path / "kept").iterdir())
    assert "gloo" not in run.out.splitlines()[-1]


# -- the command line ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dp", "ddp"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--batch-size 0", "--batch-size must be at least 1, not 0"),
        ("--batch-size 1441", "--batch-size must be at most 1440, not 1441"),
        ("--steps x", "argument --steps: invalid int value: 'x'"),
        ("--steps 0", "--steps must be at least 1, not 0"),
        ("--lr 101", "--lr must be at most 100, not 101.0"),
        ("--lr nan", "--lr must be at least 0, not nan"),
        ("--momentum 1", "--momentum must be at most 0.999, not 1.0"),
        ("--hidden 0", "--hidden must be at least 1, not 0"),
        ("--epochs 3", "unrecognized arguments: --epochs 3; did you mean --steps?"),
    ],
)
def test_a_bad_flag_is_one_sentence_and_exit_code_2(
    recipe: Recipe, capsys: pytest.CaptureFixture[str], name: str, flags: str, message: str
) -> None:
    module = recipe(name)
    with pytest.raises(SystemExit) as ending:
        parse(module.Config, module.axes, words=flags.split())
    assert ending.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f": error: {message}")


@pytest.mark.parametrize(
    ("batch", "world", "nearest"),
    [(241, 2, "240 or 242"), (3, 4, "4"), (1440, 7, "1435")],
)
def test_a_batch_that_does_not_divide_names_the_nearest_that_does(
    recipe: Recipe, batch: int, world: int, nearest: str
) -> None:
    ddp = recipe("ddp")
    with pytest.raises(ValueError, match=f"^--batch-size {batch} does not divide among") as refused:
        ddp.axes(ddp.Config(batch_size=batch), world)
    assert str(refused.value).endswith(f" {world} ranks: --batch-size {nearest} would")


def test_a_real_process_ends_with_the_sentence_and_no_traceback(tmp_path: Path) -> None:
    run = run_python(tmp_path, RECIPES / "ddp.py", "--lr", "-1")
    assert run.code == 2
    assert run.out == ""
    assert run.err.splitlines()[1:] == ["ddp.py: error: --lr must be at least 0, not -1.0"]


def test_under_torchrun_ddp_refuses_before_a_process_group(tmp_path: Path) -> None:
    run = torchrun(tmp_path, 2, RECIPES / "ddp.py", "--batch-size", "7")
    assert run.code == 1  # torchrun's own
    told = "ddp.py: error: --batch-size 7 does not divide among 2 ranks"
    assert run.err.count(told) == 1
    assert "exitcode  : 2" in run.err


# -- the files -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dp", "ddp"])
def test_equal_seeds_build_equal_models_and_batches(recipe: Recipe, name: str) -> None:
    module, data = recipe(name), recipe("data").load_digits()
    config, other = module.Config(seed=3), module.Config(seed=4)
    one, two = module.build_model(config), module.build_model(config)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert sum(p.numel() for p in one.parameters()) == 4810
    rest = () if name == "dp" else (slice(None),)

    def epoch(config: object, number: int) -> torch.Tensor:
        steps = range(6 * number, 6 * number + 6)
        return torch.cat([module.batch(step, config, data, *rest)[0] for step in steps])

    first = epoch(config, 1)
    assert first.shape == (1440, 8, 8)
    assert torch.equal(first, epoch(config, 1))
    assert not torch.equal(first, epoch(config, 2))
    assert not torch.equal(first, epoch(other, 1))
    rows = [first, data.train_images]
    assert torch.equal(*(torch.unique(each.flatten(1), dim=0) for each in rows))  # each image


def test_digits_have_their_shapes_and_ranges(recipe: Recipe) -> None:
    data = recipe("data").load_digits()
    assert data.train_images.shape == (1440, 8, 8)
    assert data.test_images.shape == (357, 8, 8)
    for images, labels in (data[:2], data[2:]):
        assert images.dtype == torch.float32
        assert (images.min(), images.max()) == (0, 1)
        assert labels.dtype == torch.int64
        counts = torch.bincount(labels)
        assert counts.shape == (10,)
        assert counts.min() > 0.75 * len(labels) / 10  # each digit about as often as the others


def test_the_splits_are_disjoint_and_the_same_each_time(recipe: Recipe) -> None:
    data = recipe("data")
    train, test = (rows.tolist() for rows in data.split())
    assert sorted(train + test) == list(range(1797))
    assert (train[:3], test[-3:]) == ([1081, 1707, 927], [1653, 559, 684])  # of any numpy
    one, two = data.load_digits(), data.load_digits()
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_the_file_is_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    with np.load(RECIPES / "digits.npz", allow_pickle=False) as file:
        assert (file["images"] == datasets.load_digits().images).all()
        assert (file["labels"] == datasets.load_digits().target).all()
        assert file["images"].dtype == file["labels"].dtype == np.uint8
