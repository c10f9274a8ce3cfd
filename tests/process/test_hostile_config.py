"""Every command that reads config files says which, and leaves those of others alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("")
    config = tmp_path / "pyproject.toml"
    config.write_text("[tool.distrun.env]\nLD_PRELOAD = '/tmp/theirs.so'\n")
    return config


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
@pytest.mark.parametrize(
    "words",
    [
        ("launch", "--dry-run", "train.py"),
        ("launch", "--explain", "train.py"),
        ("launch", "--nproc-per-node", "1", "--start-method", "spawn", "train.py"),
        ("bench-comm", "--dry-run"),
        ("check", "--explain", "list"),
    ],
)
def test_a_config_file_is_named_and_one_of_another_user_is_not_read(
    distrun: Run, config: Path, words: tuple[str, ...]
) -> None:
    if "--nproc-per-node" not in words:  # what nobody would start is shown
        mine = distrun(*words)
        assert mine.returncode == 0, mine.stderr
        assert f"settings from {config}\n" in mine.stdout + mine.stderr
    os.chown(config, 65534, 65534)
    result = distrun(*words)
    assert result.returncode == 0, result.stderr
    said = result.stdout + result.stderr
    assert f"{config} is not read: it belongs to another user (uid 65534)" in said
    assert "LD_PRELOAD" not in said and "settings from" not in said


def test_quiet_says_nothing_of_files(distrun: Run, config: Path) -> None:
    config.write_text("[tool.distrun]\nnproc-per-node = 1\n")
    result = distrun("launch", "--quiet", "--start-method", "spawn", "train.py")
    assert (result.returncode, result.stderr) == (0, "")
