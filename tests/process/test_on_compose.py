"""What `--on compose` refuses before anything is made, as a user sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest


def launch(
    cwd: Path, *words: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    (cwd / "train.py").write_text("print('train')\n")
    return subprocess.run(
        [sys.executable, "-m", "distrun", "launch", "--on=compose", *words],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_an_engine_the_exit_code_is_3_and_nothing_is_made(tmp_path: Path) -> None:
    done = launch(tmp_path, "--image=a", "train.py", environ={"PATH": "/nonexistent"})
    assert done.returncode == 3, done.stderr
    assert "docker is not installed; podman is not installed" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/*"))


def test_an_engine_that_does_not_answer_is_told_with_its_own_words(tmp_path: Path) -> None:
    (programs := tmp_path / "bin").mkdir()
    (docker := programs / "docker").write_text(
        '#!/bin/sh\n[ "$1" = compose ] && exit 0\necho "is the daemon running?" >&2; exit 1\n'
    )
    docker.chmod(0o755)
    done = launch(tmp_path, "--image=a", "train.py", environ={"PATH": f"{programs}"})
    assert done.returncode == 3, done.stderr
    assert "docker does not answer: is the daemon running?" in done.stderr
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.py"], "needs --image"),
        (["--image=UPPER CASE", "train.py"], "--image"),
        (["--image=a", "none.py"], "none.py"),
        (["--image=a", "--hosts=b", "train.py"], "--on compose does not use --hosts"),
        (["--image=a", "--sync", "train.py"], "--sync has no meaning"),
        (["--image=a", "--gpus=0,1", "train.py"], "--gpus 0,1"),
        (["--image=a", "--namespace=b", "train.py"], "--namespace asks Kubernetes"),
    ],
)
def test_what_does_not_fit_containers_is_refused_with_2(
    tmp_path: Path, words: list[str], said: str
) -> None:
    done = launch(tmp_path, *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_dry_run_needs_no_engine_and_is_the_same_again(tmp_path: Path) -> None:
    words = ("--image=a", "--nodes=2", "--dry-run", "train.py", "--lr", "$X")
    texts = {launch(tmp_path, *words, environ={"PATH": "/nonexistent"}).stdout for _ in range(2)}
    (text,) = texts
    assert "node1:" in text
    assert '"$$X"' in text
    assert not list(tmp_path.glob("runs/*"))


def test_the_image_is_of_no_use_to_a_launch_on_this_machine(tmp_path: Path) -> None:
    done = launch(tmp_path, "--on=local", "--image=a", "train.py")
    assert done.returncode == 2
    assert "--image is what containers run" in done.stderr
