"""The recipes as a user runs them: real processes under plain torchrun, and their parts."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch

from distrun.env import TorchrunEnv, scrubbed

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
TIMEOUT_S = 60
WORLD_OF_ONE = TorchrunEnv.read({})


class Finished(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def losses(self) -> list[float]:
        return [float(loss) for loss in re.findall(r"^epoch .* loss (\S+)", self.out, re.M)]

    @property
    def accuracy(self) -> float:
        (correct, total) = re.findall(r"^test accuracy .*\((\d+) of (\d+)\)$", self.out, re.M)[0]
        return int(correct) / int(total)


def run_python(cwd: Path, *args: str) -> Finished:
    env = scrubbed(os.environ) | {"OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
    if sys.platform == "linux":
        env["GLOO_SOCKET_IFNAME"] = "lo"
    process = subprocess.Popen(
        [sys.executable, *args],
        cwd=cwd,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # torchrun takes its ranks along; SIGKILL would not
        try:
            process.communicate(timeout=10)
        finally:
            process.kill()
        raise
    return Finished(process.returncode, out, err)


def torchrun(cwd: Path, nproc: int, script: Path, *args: str) -> Finished:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(nproc))
    return run_python(cwd, *launcher, str(script), *args)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Finished]:
    """Run a recipe with its defaults once per (recipe, nproc); nproc 0 is plain python."""
    done: dict[tuple[str, int], Finished] = {}

    def get(recipe: str, nproc: int) -> Finished:
        key = (recipe, nproc)
        if key not in done:
            cwd, script = tmp_path_factory.mktemp(recipe), RECIPES / f"{recipe}.py"
            done[key] = torchrun(cwd, nproc, script) if nproc else run_python(cwd, str(script))
            assert done[key].code == 0, done[key].err
        return done[key]

    return get


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a recipe as its siblings do."""
    monkeypatch.syspath_prepend(str(RECIPES))
    return importlib.import_module


# -- training ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "nproc"), [("dp", 0), ("ddp", 0), ("ddp", 4)])
def test_accuracy_is_above_95_percent(
    trained: Callable[[str, int], Finished], name: str, nproc: int
) -> None:
    run = trained(name, nproc)
    assert run.accuracy > 0.95
    assert run.losses[-1] < 0.1 < run.losses[0]
    assert "Traceback" not in run.err and "Warning" not in run.err


def test_one_and_four_ranks_agree_in_every_loss(
    trained: Callable[[str, int], Finished],
) -> None:
    one, four = trained("ddp", 0), trained("ddp", 4)
    assert len(one.losses) == 20
    assert four.losses == pytest.approx(one.losses, rel=1e-5)
    assert four.accuracy == one.accuracy


def test_dp_is_ddp_with_one_rank(trained: Callable[[str, int], Finished]) -> None:
    assert trained("dp", 0).losses == pytest.approx(trained("ddp", 0).losses, rel=1e-5)


def test_ranks_agree_when_the_last_batch_of_an_epoch_is_not_full(
    recipe: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    dp = recipe("dp")
    dp.train(dp.Config(batch_size=98, epochs=3), torch.device("cpu"))  # 1440 = 14 x 98 + 68
    one = Finished(0, capsys.readouterr().out, "")
    two = torchrun(tmp_path, 2, RECIPES / "ddp.py", "--batch-size", "98", "--epochs", "3")
    assert len(one.losses) == 3
    assert two.losses == pytest.approx(one.losses, rel=1e-5)
    assert two.accuracy == one.accuracy


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_does_not_depend_on_the_seed(
    recipe: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    dp = recipe("dp")
    dp.train(dp.Config(seed=seed), torch.device("cpu"))
    assert Finished(0, capsys.readouterr().out, "").accuracy > 0.96


def test_on_one_device_dp_says_that_nothing_is_parallel(
    trained: Callable[[str, int], Finished],
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    first = trained("dp", 0).out.splitlines()[0]
    assert first == "DataParallel has one device (cpu): nothing runs in parallel"
    first = trained("ddp", 4).out.splitlines()[0]
    assert first.startswith("world size 4: gloo on cpu (GPUs here: 0 for 4 local ranks), 60 of 240")


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_no_gloo_thread_outlives_the_process_group(tmp_path: Path) -> None:
    # One that does can take the GIL during the interpreter's exit: SIGABRT in a good run.
    script = tmp_path / "threads.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(RECIPES)!r})\n"
        "from pathlib import Path\n"
        "import ddp\n"
        "ddp.main()\n"
        "print([p.read_text() for p in Path('/proc/self/task').glob('*/comm')])\n"
    )
    run = run_python(tmp_path, str(script), "--epochs", "1")
    assert run.code == 0, run.err
    assert "gloo" not in run.out.splitlines()[-1]


# -- the command line ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dp", "ddp"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--batch-size 0", "--batch-size must be from 1 to 1440, not 0"),
        ("--batch-size 1441", "--batch-size must be from 1 to 1440, not 1441"),
        ("--epochs x", "argument --epochs: invalid int value: 'x'"),
        ("--epochs 0", "--epochs must be from 1 to 100000, not 0"),
        ("--lr -1", "--lr must be from 1e-06 to 100, not -1.0"),
        ("--lr nan", "--lr must be from 1e-06 to 100, not nan"),
        ("--seed -1", "--seed must be from 0 to 9223372036854775807, not -1"),
        ("--hidden 0", "--hidden must be from 1 to 65536, not 0"),
        ("--epoch-s 3", "unrecognized arguments: --epoch-s 3"),
    ],
)
def test_a_bad_flag_is_one_sentence_and_exit_code_2(
    recipe: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    flags: str,
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *flags.split()])
    with pytest.raises(SystemExit) as ending:
        recipe(name).parse_config(WORLD_OF_ONE)
    assert ending.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"{name}.py: error: {message}"


@pytest.mark.parametrize(
    ("batch", "world", "nearest"),
    [("241", "2", "240 or 242"), ("3", "4", "4"), ("1440", "7", "1435")],
)
def test_a_batch_that_does_not_divide_names_the_nearest_that_does(
    recipe: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    batch: str,
    world: str,
    nearest: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["ddp.py", "--batch-size", batch])
    with pytest.raises(SystemExit) as ending:
        recipe("ddp").parse_config(TorchrunEnv.read({"WORLD_SIZE": world}))
    assert ending.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"ddp.py: error: --batch-size {batch} does not divide among {world} ranks;"
        f" the nearest that does: {nearest}"
    )


def test_a_real_process_ends_with_the_sentence_and_no_traceback(tmp_path: Path) -> None:
    run = run_python(tmp_path, str(RECIPES / "ddp.py"), "--lr", "-1")
    assert run.code == 2
    assert run.out == ""
    assert run.err.splitlines()[1:] == ["ddp.py: error: --lr must be from 1e-06 to 100, not -1.0"]


def test_under_torchrun_ddp_refuses_before_a_process_group(tmp_path: Path) -> None:
    run = torchrun(tmp_path, 2, RECIPES / "ddp.py", "--batch-size", "7")
    assert run.code == 1  # torchrun's own
    assert "ddp.py: error: --batch-size 7 does not divide among 2 ranks" in run.err
    assert "exitcode  : 2" in run.err


def test_dp_refuses_a_second_process(
    recipe: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["dp.py"])
    with pytest.raises(SystemExit) as ending:
        recipe("dp").parse_config(TorchrunEnv.read({"WORLD_SIZE": "2"}))
    assert ending.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "dp.py: error: DataParallel is one process, not 2: use ddp.py for more"
    )


# -- the files -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.py")), ids=lambda path: path.name)
def test_a_recipe_fits_in_200_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 200


@pytest.mark.parametrize("name", ["dp", "ddp"])
def test_equal_seeds_build_equal_models_and_batches(
    recipe: Callable[[str], ModuleType], name: str
) -> None:
    module = recipe(name)
    config, other = module.Config(seed=3), module.Config(seed=4)
    one, two = module.build_model(config), module.build_model(config)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert sum(p.numel() for p in one.parameters()) == 4810
    batches = module.epoch_batches(config, 1)
    assert batches.shape == (6, 240)
    assert sorted(batches.flatten().tolist()) == list(range(1440))
    assert torch.equal(batches, module.epoch_batches(config, 1))
    assert not torch.equal(batches, module.epoch_batches(config, 2))
    assert not torch.equal(batches, module.epoch_batches(other, 1))


def test_digits_have_their_shapes_and_ranges(recipe: Callable[[str], ModuleType]) -> None:
    data = recipe("digits").load_digits()
    assert data.train_images.shape == (1440, 8, 8)
    assert data.test_images.shape == (357, 8, 8)
    for images, labels in (data[:2], data[2:]):
        assert images.dtype == torch.float32
        assert (images.min(), images.max()) == (0, 1)
        assert labels.dtype == torch.int64
        counts = torch.bincount(labels)
        assert counts.shape == (10,)
        assert counts.min() > 0.75 * len(labels) / 10  # each digit about as often as the others


def test_the_splits_are_disjoint_and_the_same_each_time(
    recipe: Callable[[str], ModuleType],
) -> None:
    digits = recipe("digits")
    train, test = (rows.tolist() for rows in digits.split())
    assert sorted(train + test) == list(range(1797))
    assert (train[:3], test[-3:]) == ([1081, 1707, 927], [1653, 559, 684])  # of any numpy
    one, two = digits.load_digits(), digits.load_digits()
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_the_file_is_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    with np.load(RECIPES / "digits.npz", allow_pickle=False) as file:
        assert (file["images"] == datasets.load_digits().images).all()
        assert (file["labels"] == datasets.load_digits().target).all()
        assert file["images"].dtype == file["labels"].dtype == np.uint8
