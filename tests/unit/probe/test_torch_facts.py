"""The installed torch, read from its files and never imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distrun.checks.required import require_torch
from distrun.errors import MachineError
from distrun.probe.torch_facts import TorchFacts, read_torch

CUDA_BUILD = """\
from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '2.13.0+cu128'
debug = False
cuda: Optional[str] = '12.8'
git_version = 'abc'
hip: Optional[str] = None
"""


@pytest.fixture
def torch_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty package `torch` that comes before any other."""
    folder = tmp_path / "site" / "torch"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('torch was imported')\n")
    monkeypatch.setattr(sys, "path", [str(folder.parent), *sys.path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    return folder


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (CUDA_BUILD, TorchFacts("2.13.0+cu128", "12.8")),
        (CUDA_BUILD.replace("'12.8'", "None"), TorchFacts("2.13.0+cu128", None)),
        ("__version__ = '2.11.0'\ncuda = '13.0'\n", TorchFacts("2.11.0", "13.0")),
        ("__version__ = '2.13.0+cpu'\ncuda = None\n", TorchFacts("2.13.0+cpu", None)),
        ("nothing\n", TorchFacts("", None)),
        ("__version__ = '2.13.0'\nhip: Optional[str] = '6.2'\n", TorchFacts("2.13.0", None)),
    ],
)
def test_the_version_file_tells_version_and_cuda(
    torch_dir: Path, text: str, facts: TorchFacts
) -> None:
    (torch_dir / "version.py").write_text(text)
    assert read_torch() == facts


def test_a_torch_without_a_version_file_is_none(torch_dir: Path) -> None:
    assert read_torch() == TorchFacts("", None)


def test_no_torch_at_all_is_what_the_machine_lacks(
    torch_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    facts = read_torch()
    assert facts == TorchFacts("", None)
    with pytest.raises(MachineError, match="torch is not installed for") as refused:
        require_torch(facts.version)
    assert refused.value.hint.endswith(" -m pip install torch")
    with pytest.raises(MachineError, match="torch is not installed on b") as refused:
        require_torch(facts.version, "b")
    assert refused.value.hint.startswith("--python names an interpreter there")
    require_torch("2.13.0")


def test_the_torch_of_this_environment_is_found() -> None:
    assert read_torch().version.startswith("2.")
