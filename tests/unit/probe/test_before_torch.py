"""What comes before torch in a script decides whether its ranks may start warm."""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from distrun.probe import before_torch
from distrun.probe.import_order import BRINGS_TORCH, INDIFFERENT
from distrun.probe.script import Script, read_script

FILES = {
    "site-packages/simgym/__init__.py": "",
    "site-packages/simgym/envs.py": "",
    "site-packages/tool/__main__.py": "",
    "path/mine.py": "import simgym",
    "path/whole.py": "import torch",
    "far/editable.py": "",
    "refuses.py": "import sys\nif 'torch' in sys.modules:\n    raise ImportError('too late')",
    "sim_first.py": "import simgym",
    "torch_first.py": "import torch, simgym",
    "lazy.py": "def load():\n    import simgym",
    "pkg/__init__.py": "",
    "pkg/sim.py": "from . import deeper",
    "pkg/deeper.py": "from simgym.envs import Env",
    "pkg/__main__.py": "import torch",
    "pkg/fast/__init__.py": "",
    f"pkg/fast/_C{EXTENSION_SUFFIXES[0]}": "",
    "folder/plain.py": "import tqdm",
    f"compiled{EXTENSION_SUFFIXES[0]}": "",
    "deep.py": "if a:\n  pass\n" + "elif a:\n  pass\n" * 2000,
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    for folder in ("site-packages", "path"):
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    return tmp_path


def script(source: str) -> Script:
    Path("train.py").write_text(source)
    found = read_script("train.py", module=False, no_python=False)
    assert not found.error
    assert not found.cold_reason
    return found


COLD = {
    "import simgym\nimport torch": "simgym",
    "import simgym": "simgym",
    "from simgym import envs\nimport torch": "simgym",
    "import simgym.envs as e, torch": "simgym",
    "import simgym; from torch import nn": "simgym",
    "try:\n    import simgym\nexcept ImportError:\n    simgym = None\nimport torch": "simgym",
    "if True:\n    from simgym import envs\nimport torch": "simgym",
    "with open('x'):\n    import simgym\nimport torch": "simgym",
    "class A:\n    import simgym\nimport torch": "simgym",
    "def main():\n    import simgym\n    import torch\nmain()": "simgym",
    "if False:\n    import torch\nimport simgym\nimport torch": "simgym",
    "import importlib\nx = importlib.import_module('simgym.envs')\nimport torch": "simgym",
    "x = __import__('simgym')\nimport torch": "simgym",
    "import numpy as np\nfrom tqdm import tqdm\nimport simgym\nimport torch": "simgym",
    "import sim_first\nimport torch": "simgym",
    "import lazy\nimport torch": "simgym",
    "from pkg import sim\nimport torch": "simgym",
    "import pkg.sim\nimport torch": "simgym",
    "import mine\nimport torch": "simgym",
    "import compiled\nimport torch": "compiled",
    "from pkg.fast import _C\nimport torch": "_C",
    "import not_installed\nimport torch": "not_installed",
}
WARM = [
    "import torch\nimport simgym",
    "import torch, simgym",
    "import os, sys, json\nimport torch\nimport simgym",
    "import numpy as np\nimport torch",
    "from tqdm import tqdm\nimport yaml, einops\nimport torch",
    "import torchvision\nimport simgym",
    "from accelerate import Accelerator\nimport simgym\nimport torch",
    "import torch_first\nimport simgym\nimport torch",
    "import whole\nimport simgym",
    "from folder import plain\nimport torch",
    "import pkg\nimport torch",
    "def main():\n    import torch\n    import simgym\nmain()",
    "import torch\ndef main():\n    import simgym\nmain()",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import simgym\nimport torch",
    "import typing as t\nif t.TYPE_CHECKING:\n    import simgym\nimport torch",
    "import torch\nfrom pkg import sim",
    "import torch\nimport refuses",
    "import sys\nmain = sys.modules[__name__]\nimport torch",
    "import sys\nif 'google.colab' in sys.modules:\n    pass\nimport torch",
    "import sys\nsys.modules.get('__mp_main__')\nimport torch",
    "import torch, sys\nprint('torch' in sys.modules)",
]


@pytest.mark.parametrize("source", COLD)
def test_a_package_from_elsewhere_before_torch_means_a_cold_start(source: str) -> None:
    reason = script(source).suspicion
    assert reason.startswith(f"it imports {COLD[source]} before torch; import torch first, or")
    assert "--start-method forkserver" in reason
    assert "\n" not in reason


@pytest.mark.parametrize("source", WARM)
def test_what_does_not_mind_torch_or_comes_behind_it_starts_warm(source: str) -> None:
    assert script(source).suspicion == ""


@pytest.mark.parametrize(
    "source",
    [
        "import refuses\nimport torch",
        "import sys\nassert 'torch' not in sys.modules\nimport torch",
        "import sys\nif sys.modules.get('torch.cuda'):\n    raise SystemExit\nimport torch",
        "import sys\nx = [m for m in sys.modules if m.startswith('to')]\nimport torch",
        "from sys import modules\nimport torch",
        "import sys\nprint('torch' in sys.modules)",
    ],
)
def test_who_looks_for_torch_before_he_imports_it_starts_cold(source: str) -> None:
    assert script(source).suspicion.startswith("it reads sys.modules before torch; ")


def test_what_a_script_cannot_be_read_for_is_taken_as_minding_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for source in ("import deep\nimport torch", FILES["deep.py"] + "import torch"):
        assert script(source).suspicion.startswith(
            "it runs more code than distrun reads before torch"
        )
    assert script("import torch\nimport deep").suspicion == ""
    monkeypatch.setattr(before_torch, "_MAX_NBYTES", 20)
    assert "more code than distrun reads" in script("import lazy\nimport torch").suspicion
    assert script("import torch\nimport lazy").suspicion == ""


@pytest.mark.parametrize("name", ["tool", "json.tool", "cProfile", "simgym.envs"])
def test_an_installed_module_starts_cold_as_what_it_runs_is_not_seen(name: str) -> None:
    reason = read_script(name, module=True, no_python=False).suspicion
    assert reason.startswith("an installed module may have to come before torch; ")


@pytest.mark.parametrize("name", ["pkg", "whole", "torch_first", "distrun.bench.program"])
def test_a_module_of_the_users_own_or_of_distrun_starts_warm(name: str) -> None:
    found = read_script(name, module=True, no_python=False)
    assert (found.error, found.cold_reason, found.suspicion) == ("", "", "")


def test_a_module_of_ones_own_is_read_as_a_script_is() -> None:
    assert "imports simgym" in read_script("pkg.sim", module=True, no_python=False).suspicion


def test_nothing_of_what_is_read_is_imported() -> None:
    script("import simgym, mine, pkg.sim\nimport torch")
    assert not {"simgym", "mine", "pkg"} & set(sys.modules)


def test_no_package_stands_in_both_tables() -> None:
    assert not INDIFFERENT & BRINGS_TORCH


@pytest.mark.parametrize(
    "source",
    [
        "import os\nenv = os.environ\nenv['OMP_NUM_THREADS'] = '1'\nimport torch",
        "import os\nos.environb[b'OMP_NUM_THREADS'] = b'1'\nimport torch",
        "import os\nos.environ['OMP_NUM_THREADS'], x = '1', 2\nimport torch",
        "import os\nfrom unittest import mock\n"
        "mock.patch.dict(os.environ, A='1').start()\nimport torch",
        "import os\nwhile not os:\n    import torch\nos.environ['A'] = '1'\nimport torch",
        "import os\nmatch 3:\n    case 4:\n        import torch\n"
        "os.environ['A'] = '1'\nimport torch",
    ],
)
def test_a_variable_that_is_set_by_another_way_starts_cold(source: str) -> None:
    Path("sets.py").write_text(source)
    found = read_script("sets.py", module=False, no_python=False)
    assert found.cold_reason.startswith("it sets ")


@pytest.mark.parametrize(
    "source",
    [
        "import importlib, sys\nimportlib.import_module(sys.argv[1])\nimport torch",
        "exec(open('setup.py').read())\nimport torch",
        "import runpy\nrunpy.run_path('setup.py')\nimport torch",
        "import ctypes\nctypes.CDLL('libmkl.so', mode=ctypes.RTLD_GLOBAL)\nimport torch",
    ],
)
def test_code_that_cannot_be_read_starts_cold(source: str) -> None:
    assert script(source).suspicion.startswith("it runs code by ")
    assert script(f"import torch\n{source}").suspicion == ""


@pytest.mark.parametrize(
    "source",
    [
        "import os\nenv = dict(os.environ)\nenv['A'] = '1'\nimport torch",
        "import os\nprint(os.environ.get('RANK'), {**os.environ})\nimport torch",
    ],
)
def test_reading_the_environment_starts_warm(source: str) -> None:
    found = script(source)
    assert (found.cold_reason, found.suspicion) == ("", "")
