"""What is missing is installed by a line that works where it is pasted."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from distrun.extras import install_command, missing

PIP = [sys.executable, "-m", "pip", "install"]


def test_a_package_that_is_there_is_not_missing() -> None:
    assert missing("pytest", "test") == ""


def test_a_checkout_installs_itself_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "my copy"
    root.mkdir()
    (root / "pyproject.toml").touch()
    assert shlex.split(install_command("plot", root)) == [*PIP, "-e", f"{root}[plot]"]
    monkeypatch.chdir(root)
    assert shlex.split(install_command("plot", root)) == [*PIP, "-e", ".[plot]"]


def test_an_installed_one_is_asked_for_by_name(tmp_path: Path) -> None:
    assert shlex.split(install_command("plot", tmp_path)) == [*PIP, "distrun[plot]"]


def test_this_is_a_checkout_with_these_extras() -> None:
    root = Path(__file__).parents[3]
    declared = (root / "pyproject.toml").read_text(encoding="utf-8")
    for package, extra in (("no_such_package", "plot"), ("no_such_package", "tensorboard")):
        assert f"{extra} = [" in declared
        assert shlex.split(missing(package, extra))[-1].endswith(f"[{extra}]")
