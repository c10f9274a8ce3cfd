"""What has to come before torch runs without a flag; forced to come after, it is told why."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

REFUSES = "import sys\nif 'torch' in sys.modules:\n    raise ImportError('sim before torch')\n"
CRASHES = "import ctypes, sys\nif 'torch' in sys.modules:\n    ctypes.string_at(0)\n"
RUNS_IT = "import runpy, sys\nimport sim\nrunpy.run_path(sys.argv[1], run_name='__main__')\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    installed = tmp_path / "site-packages"
    for name, text in (
        ("sim/__init__.py", REFUSES),
        ("crash/__init__.py", CRASHES),
        ("tool.py", RUNS_IT),
    ):
        (installed / name).parent.mkdir(parents=True, exist_ok=True)
        (installed / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(installed), prepend=":")
    (tmp_path / "refuses.py").write_text(REFUSES)
    return tmp_path


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("source", "words", "why"),
    [
        ("import sim", ["train.py"], "imports sim before torch"),
        ("import refuses", ["train.py"], "reads sys.modules before torch"),
        ("", ["-m", "tool", "train.py"], "an installed module may have to come before torch"),
    ],
    ids=["installed", "beside the script", "a tool"],
)
def test_what_must_come_before_torch_runs_without_a_flag(
    source: str, words: list[str], why: str, machine: Path, distrun: Run
) -> None:
    (machine / "train.py").write_text(f"{source}\nimport torch\nprint('ran', torch.ones(1))\n")
    done = distrun("launch", "--nproc-per-node", 1, *words)
    assert done.returncode == 0, done.stderr
    assert "ran tensor" in done.stdout
    (said,) = [line for line in done.stderr.splitlines() if "starts cold" in line]
    assert why in said


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("module", "exit_code", "cause"),
    [("sim", 1, "ImportError: sim before torch"), ("crash", 139, "killed by SIGSEGV")],
)
def test_a_warm_rank_that_falls_in_an_import_is_told_how_to_start_cold(
    module: str, exit_code: int, cause: str, machine: Path, distrun: Run
) -> None:
    (machine / "train.py").write_text(f"import {module}\n")
    words = ("--nproc-per-node", 2, "train.py")
    warm = distrun("launch", "--start-method", "forkserver", *words)
    assert (warm.returncode, cause in warm.stderr) == (exit_code, True), warm.stderr
    assert "starts cold" not in warm.stderr
    assert "--start-method spawn" in warm.stderr
    (machine / "train.py").write_text("raise ImportError('cold, and all the same')\n")
    cold = distrun("launch", "--start-method", "spawn", *words)
    assert cold.returncode == 1
    assert "hint" not in cold.stderr
