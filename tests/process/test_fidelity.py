"""A rank, warm or cold, cannot be told apart from `python -u recipe.py`.

One table of scripts. Each is run by python, by a cold and by a warm launch, in three
directories that are alike; what it printed, its exit code and the files it wrote must be
equal, but for the differences listed at `LAUNCHER_SETS` and `normalised`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distrun.probe.script import read_script
from tests.conftest import only_run
from tests.process.fidelity import (
    Case,
    Launch,
    by_distrun,
    by_python,
    difference,
    laid_out,
    side_by_side,
)
from tests.process.fidelity_cases import CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_script_cannot_tell_distrun_from_python(
    case: Case, tmp_path: Path, distrun: Launch
) -> None:
    if "ExceptionGroup" in case.script and sys.version_info < (3, 11):
        pytest.skip("python 3.10 has no exception groups")
    expected, launches = side_by_side(case, tmp_path, distrun)
    differences = ""
    for by, (found, done) in launches.items():
        differences += difference(expected, found, by)
        says_cold = [line for line in done.stdout.splitlines() if "starts cold" in line]
        if by == "warm" and case.starts_cold:
            assert len(says_cold) == 1 and case.starts_cold in says_cold[0]
        else:
            assert not says_cold
    assert not differences, differences


@pytest.mark.parametrize(
    "name", ["facts", "stdin", "farewell", "a forked child that ends like a script"]
)
def test_neither_can_it_with_stdout_and_stderr_apart(
    name: str, tmp_path: Path, distrun: Launch
) -> None:
    (case,) = (case for case in CASES if case.name == name)
    expected = by_python(case, tmp_path / "pyth", apart=True)
    assert case.prints in expected.output
    found, _ = by_distrun(case, tmp_path / "warm", distrun, "forkserver", apart=True)
    assert not (diff := difference(expected, found, "warm")), diff


def test_torch_compile_works_in_a_warm_rank(tmp_path: Path, distrun: Launch) -> None:
    # In an empty cache g++ has to run; python would take as long and print the same.
    environ = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    case = Case("compiled", environ=environ, run_timeout_s=110)
    warm, _ = by_distrun(case, tmp_path / "warm", distrun, "forkserver")
    *said, numbers, graphs, process = warm.output.splitlines()
    assert [numbers, graphs, process] == [str([1.0] * 8), "graphs 1", "another process True"]
    assert all("No CUDA runtime is found" in line for line in said)  # a CUDA build, without GPUs
    assert warm.exit_code == 0


SEEDS = """
import random, numpy, torch
def numbers():
    drawn = random.random(), numpy.random.rand(), torch.rand(1).item(), torch.initial_seed()
    print(*map(repr, drawn))
numbers()
random.seed(1), numpy.random.seed(2), torch.manual_seed(3)
numbers()
"""


def test_ranks_draw_numbers_of_their_own_until_they_are_seeded(
    tmp_path: Path, distrun: Launch
) -> None:
    case = Case("seeds", SEEDS)
    seeded = by_python(case, tmp_path / "pyth").output.splitlines()[1]
    unseeded = []
    for run in ("first", "second"):
        directory = laid_out(case, tmp_path / run)
        distrun("launch", "--nproc-per-node", 2, "recipe.py", cwd=directory)
        for rank in (0, 1):
            log = only_run(directory) / "logs" / "node0" / f"rank{rank}.log"
            own, after_seeding = log.read_text().splitlines()
            unseeded.append(own.split())
            assert after_seeding == seeded
    for drawn in zip(*unseeded, strict=True):  # random's, numpy's, torch's, torch's seed
        assert len(set(drawn)) == 4, drawn


SETS_ENVIRONMENT = {
    "in the script": {
        "recipe.py": "import os\nos.environ['OMP_NUM_THREADS'] = '1'\nimport torch",
    },
    "in main, where torch is imported too": {
        "recipe.py": (
            "from os import environ\ndef main():\n    environ.update(OMP_NUM_THREADS='1')\n"
            "    import torch\nmain()\nimport torch"
        ),
    },
    "in a package beside it": {
        "recipe.py": "import settings.threads\nimport torch",
        "settings/__init__.py": "from . import threads",
        "settings/threads.py": "import os\nos.environ |= {'OMP_NUM_THREADS': '1'}",
    },
}


@pytest.mark.parametrize("files", SETS_ENVIRONMENT.values(), ids=SETS_ENVIRONMENT)
def test_a_script_that_prepares_the_environment_for_torch_starts_cold_by_itself(
    files: dict[str, str], tmp_path: Path, distrun: Launch
) -> None:
    files = files | {"recipe.py": files["recipe.py"] + "\nprint(torch.get_num_threads())\n"}
    case = Case("environment", files=files)
    expected = by_python(case, tmp_path / "pyth")
    assert expected.output == "1\n"
    found, done = by_distrun(case, tmp_path / "dist", distrun, "forkserver")
    assert not (diff := difference(expected, found, "distrun")), diff
    assert len([line for line in done.stdout.splitlines() if "starts cold" in line]) == 1


WARM = [
    "import torch, os\nos.environ['OMP_NUM_THREADS'] = '1'",
    "import os\nos.environ['WANDB_MODE'] = 'offline'\nimport torch",
    "import helper\nimport os\nos.environ['A'] = '1'",
    "import os\nprint(os.environ['A'], os.environ.get('B'))\nimport torch",
]
COLD = [
    "import os\nif os.name:\n    os.environ.setdefault('A', '1')\n    import torch",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
    "import os\nos.environ['A'] = '1'\nimport torch",
    "import os\ndel os.environ['A']\nimport torch",
    "import os\ntry:\n    os.unsetenv('A')\nfinally:\n    import torch",
    "from pkg import setting\nimport torch",
    "import pkg.inner\nimport torch",
]


@pytest.mark.parametrize("source", [*WARM, *COLD])
def test_only_what_torch_could_read_makes_a_script_start_cold(source: str, tmp_path: Path) -> None:
    files = {
        "recipe.py": source,
        "helper.py": "import torch",
        "pkg/__init__.py": "",
        "pkg/setting.py": "import os\nos.environ['A'] = '1'",
        "pkg/inner.py": "from . import setting",
    }
    laid_out(Case("reading", files=files), tmp_path)
    script = read_script(str(tmp_path / "recipe.py"), module=False, no_python=False)
    assert bool(script.cold_reason) == (source in COLD), script.cold_reason


def test_a_warm_rank_has_torch_before_it_asks_and_a_cold_one_has_not(
    tmp_path: Path, distrun: Launch
) -> None:
    # Without this, every other test here would pass with nothing warm in it.
    case = Case("warm", "import sys\nprint('torch' in sys.modules)")
    for method, expected in (("forkserver", "True\n"), ("spawn", "False\n")):
        found, _ = by_distrun(case, tmp_path / method, distrun, method)
        assert found.output == expected


def test_the_stack_ends_with_the_script(tmp_path: Path, distrun: Launch) -> None:
    # What is left to see of it: walks of the stack (traceback.print_stack, pdb's `where`), a
    # warning whose stacklevel reaches beyond the script, six calls less before RecursionError.
    case = Case("stack", "import traceback\ntraceback.print_stack()")
    expected = by_python(case, tmp_path / "pyth")
    found, _ = by_distrun(case, tmp_path / "warm", distrun, "forkserver")
    assert not difference(expected, found, "warm")
