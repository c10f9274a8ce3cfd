"""Metrics reach the tracker that a script has open, and import none otherwise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LOG = "from distrun.train import metrics\nfor n in (1, 2): metrics.log(n, loss=1 / n)\n"
TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a script in a directory of its own; nothing it opens goes elsewhere."""
    for name in ("HOME", "TRACKIO_DIR", "WANDB_DIR", "DISTRUN_RUN_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))

    def script(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        words = [sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return done

    return script


def test_no_tracker_is_imported_unless_one_is_open(run: Run) -> None:
    code = LOG + f"import sys; print([n for n in sys.modules if n.startswith({TRACKERS!r})])"
    assert run(code).stdout == "[]\n"


def test_a_writer_of_tensorboard_gets_them_once_it_is_attached(run: Run) -> None:
    code = (
        "class Writer:\n"
        "    def add_scalar(self, tag, scalar_value, global_step):\n"
        "        print(tag, scalar_value, global_step)\n"
        "from distrun.train import metrics\n"
        "writer = Writer(); metrics.attach(writer); metrics.attach(writer)\n"
    )
    assert run(code + LOG).stdout == "loss 1.0 1\nloss 0.5 2\n"


@pytest.mark.thorough  # it makes the tables of its database
def test_a_run_of_mlflow_that_is_open_gets_them(run: Run) -> None:
    pytest.importorskip("mlflow")
    code = (
        "import mlflow\n"
        "with mlflow.start_run() as run:\n    "
        + LOG.replace("\n", "\n    ")
        + "\nfound = mlflow.MlflowClient().get_metric_history(run.info.run_id, 'loss')\n"
        "print([(each.step, each.value) for each in found])"
    )
    assert run(code).stdout.endswith("[(1, 1.0), (2, 0.5)]\n")


def test_a_run_of_wandb_that_is_open_gets_them_offline(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run("import wandb\nwandb.init(project='p')\n" + LOG + "print(wandb.run.summary['loss'])")
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_a_run_of_trackio_that_is_open_gets_them(run: Run) -> None:
    pytest.importorskip("trackio")
    code = (
        "import trackio\nrun = trackio.init(project='p', embed=False)\n"
        "seen = []\nlog = run.log\n"
        "run.log = lambda values, step=None: seen.append((step, dict(values)))\n"
    )
    said = run(code + LOG + "run.log = log\ntrackio.finish()\nprint(seen)").stdout
    assert said.endswith("[(1, {'loss': 1.0}), (2, {'loss': 0.5})]\n")


def test_track_opens_tensorboard_in_the_run_directory_on_rank_0_alone(
    run: Run, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    run(LOG, DISTRUN_TRACK="tensorboard", RANK="1")
    assert not (tmp_path / "tensorboard").exists()
    run(LOG, DISTRUN_TRACK="tensorboard", RANK="0")
    assert list((tmp_path / "tensorboard").glob("events.*"))


@pytest.mark.thorough
def test_track_opens_a_run_of_mlflow(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    run(LOG, DISTRUN_TRACK="mlflow", RANK="0")
    assert (tmp_path / "mlflow.db").stat().st_size > 0


def test_an_error_of_a_tracker_is_told_once_and_does_not_end_the_training(run: Run) -> None:
    code = (
        "from distrun.train import metrics\n"
        "class Writer:\n"
        "    def add_scalar(self, *_, **__): raise OSError(28, 'No space left on device')\n"
        "metrics.attach(Writer())\n"
    )
    done = run(code + LOG + "print('trained')")
    assert done.stdout == "trained\n"
    assert done.stderr.count("distrun: metrics no longer go to tensorboard 0: OSError") == 1
    assert "Traceback" not in done.stderr
