"""`distrun launch --on slurm --dry-run` prints one script, and makes nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distrun import __version__

Run = Callable[..., subprocess.CompletedProcess[str]]
GOLDEN = Path(__file__).parents[1] / "golden"
WORDS = (
    *("--on", "slurm", "--nodes", "2:4", "--partition", "gpu", "--time", "2h", "--requeue"),
    *("--sbatch", "mem=64G", "--sbatch", "contiguous", "--env", "HF_TOKEN=hunter2"),
    *("--env", "GREETING=it's $HOME", "--quiet", "--dry-run", "my train.py", "--lr", "0.1"),
)
BAD = {
    "no script": (["none.py"], 2, "script 'none.py' does not exist"),
    "a time": (["--time", "soon", "my train.py"], 2, "--time 'soon' is not a duration"),
    "an array": (["--sbatch", "array=0-3", "my train.py"], 2, "a run cannot have array"),
    "an own flag": (["--sbatch", "time=3", "my train.py"], 2, "distrun sets time itself"),
    "hosts": (["--hosts", "a", "my train.py"], 2, "--on slurm does not use --hosts"),
    "a debugger": (["--debug-rank", "0", "my train.py"], 2, "exclude each other"),
    "no Slurm": (["my train.py"], 3, "--on slurm needs sbatch: No such file or directory"),
}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment without Slurm and outside of any job."""
    (tmp_path / "my train.py").write_text("print('hi')\n")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
    return {**kept, "PATH": str(tmp_path)}


def test_the_script_is_the_recorded_one(
    distrun: Run, tmp_path: Path, environ: dict[str, str]
) -> None:
    done = distrun("launch", *WORDS, env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    script = re.sub(r"\d{8}-\d{6}-my-train-[0-9a-f]{4}", "RUN", done.stdout)
    for real, name in ((str(tmp_path), "/work"), (sys.executable, "/venv/bin/python")):
        script = script.replace(real, name)
    script = script.replace(f"distrun {__version__}:", "distrun VERSION:")
    assert script == (GOLDEN / "submit_dry_run.sh").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["my train.py"]


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_sentence_and_leaves_nothing(
    distrun: Run, tmp_path: Path, environ: dict[str, str], case: str
) -> None:
    words, code, says = BAD[case]
    done = distrun("launch", "--on", "slurm", *words, env=environ)
    assert done.returncode == code and says in done.stderr, done.stderr
    assert not list(tmp_path.glob("runs/*"))


def test_flags_for_slurm_need_slurm(distrun: Run, environ: dict[str, str]) -> None:
    done = distrun("launch", "--requeue", "my train.py", env=environ)
    assert done.returncode == 2 and "--requeue asks Slurm for a job" in done.stderr
    inside = {**environ, "SLURM_JOB_ID": "12"}
    done = distrun("launch", "--on", "slurm", "--qos", "x", "my train.py", env=inside)
    assert done.returncode == 2 and "inside Slurm job 12" in done.stderr


def test_a_table_for_slurm_is_read_where_a_job_is_submitted_alone(
    distrun: Run, tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / "c.toml").write_text(
        '[tool.distrun.slurm]\npartition = "a"\nqos = "q"\nsbatch = { mem = "4G" }\n'
    )
    words = ("--config", "c.toml", "--dry-run")
    slurm = distrun("launch", "--on", "slurm", "--partition", "b", *words, "my train.py",
                    env=environ)  # fmt: skip
    assert "#SBATCH --partition=b\n#SBATCH --qos=q\n" in slurm.stdout, slurm.stderr
    assert "#SBATCH --mem=4G" in slurm.stdout and slurm.stdout.startswith("#!/bin/bash\n")
    assert "torchrun" in distrun("launch", *words, "my train.py", env=environ).stdout
