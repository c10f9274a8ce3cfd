"""Commands that start programs of distrun's own import nothing from the current directory."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)

HOSTILE = (
    *("torch", "numpy", "json", "platform", "statistics", "socket", "random", "sitecustomize"),
    *("psutil", "pynvml", "typing_extensions", "rows", "memory", "recipes", "bench", "comm"),
    "distrun",
)
"""Modules of the standard library, of others and of distrun, as somebody may have put there."""


@pytest.mark.parametrize(
    "words",
    [
        "bench-comm --op all_reduce --sizes 64 --place out -n 2 -w 1 --nproc-per-node 2",
        "bench-comm --op all_reduce --sizes 64 --place out -n 2 -w 1 --nproc-per-node 2"
        " --start-method spawn",
        "check --deep --nproc-per-node 2",
    ],
)
def test_modules_in_the_current_directory_are_not_run(tmp_path: Path, words: str) -> None:
    here, elsewhere, told = tmp_path / "here", tmp_path / "elsewhere", tmp_path / "told"
    for directory in (here, elsewhere, told):
        directory.mkdir()
    for name in HOSTILE:
        package = here / name
        package.mkdir()
        content = f"open({str(told / name)!r}, 'w')\nraise SystemExit(66)\n"
        (package / "__init__.py").write_text(content)
    # As an installed `distrun` does: its own directory comes first, and not the current one.
    (elsewhere / "run.py").write_text("from distrun.cli.main import main\nmain()\n")
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, elsewhere / "run.py", *shlex.split(words)],
        cwd=here,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert not [path.name for path in told.iterdir()], result.stderr
    assert result.returncode in (0, 1, 3), result.stderr  # a check may find something
    assert "all_reduce" in result.stdout + result.stderr
