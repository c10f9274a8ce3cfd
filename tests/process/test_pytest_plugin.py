"""The pytest plugin, in a pytest of its own, as a user has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import os
import pytest
import torch

@pytest.mark.ranks(2, 4, backend=["threads", "gloo"])
def test_mean(world, tmp_path):
    assert world.all_reduce(torch.tensor(float(world.rank)), "mean") == (world.world_size - 1) / 2
    assert world.all_gather_object(str(tmp_path)) == [str(tmp_path)] * world.world_size

class TestInAClass:
    @pytest.mark.parametrize("x", [1, 5])
    @pytest.mark.ranks(3, backend=["threads", "gloo"])
    def test_sum(self, world, x):
        assert world.all_reduce(torch.tensor(x)) == 3 * x

@pytest.mark.ranks(2, backend="nccl")
def test_on_gpus(world):
    pass

@pytest.mark.ranks(2, backend=["threads", "gloo"])
def test_that_skips_itself(world):
    pytest.skip("not today")

@pytest.mark.ranks(2)
def test_that_lacks_something(world):
    pytest.importorskip("no_such_module")

@pytest.mark.xfail(raises=ValueError, strict=True)
@pytest.mark.ranks(2, backend=["threads", "gloo"])
def test_that_is_known_to_fail(world):
    raise ValueError("known")

@pytest.mark.ranks(2)
def test_another(world):
    assert world.world_size == 2

@pytest.mark.ranks(1, backend="gloo")
def test_alone(world):
    assert world.world_size == 1
"""

FAILING = """
import pytest
import torch

@pytest.mark.ranks(2, backend=["threads", "gloo"])
def test_wrong(world):
    print("here is", world.rank)
    assert world.all_reduce(torch.ones(1)) == 3
"""


def run_pytest(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_suite.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
    )


@pytest.mark.parametrize("options", [(), ("-n2",), ("--import-mode=importlib",)], ids=str)
def test_a_test_runs_on_every_rank_of_every_world_it_names(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = run_pytest(tmp_path, SUITE, "-rs", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 passed, 4 skipped, 2 xfailed" in done.stdout
    assert "nccl needs 2 GPUs" in done.stdout


def test_the_readmes_tests_pass_as_they_stand(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    blocks = [part.partition("```")[0] for part in readme.split("```python\n")[1:]]
    (block,) = (b for b in blocks if "run_ranks" in b)
    done = run_pytest(tmp_path, block)
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout


def test_a_failure_shows_each_ranks_traceback_and_output(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, FAILING)
    assert done.returncode == 1
    for backend in ("threads", "gloo"):
        _, _, report = done.stdout.partition(f"_ test_wrong[{backend}-2] _")
        report, _, _ = report.partition("\n____")
        assert "was the first; 2 of 2 ranks failed)" in report
        assert "assert world.all_reduce(torch.ones(1)) == 3" in report
        assert "assert tensor([2.]) == 3" in report
        assert "[rank 0] here is 0" in report
        assert "[rank 1] here is 1" in report
        assert "distrun/testing" not in report


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("def test_it(world): pass", "needs @pytest.mark.ranks"),
        ("@pytest.mark.ranks(2)\ndef test_it(): pass", "takes `world`"),
        ("@pytest.mark.ranks(2, backends='gloo')\ndef test_it(world): pass", "not take backends="),
        ("@pytest.mark.ranks(0)\ndef test_it(world): pass", "not take 0"),
        ("@pytest.mark.ranks(2, backend='glo')\ndef test_it(world): pass", "backend='glo'"),
        ("@pytest.mark.ranks('2')\ndef test_it(world): pass", "'2'"),
    ],
)
def test_a_marker_that_makes_no_sense_is_refused(tmp_path: Path, test: str, message: str) -> None:
    done = run_pytest(tmp_path, f"import pytest\n{test}\n")
    assert done.returncode != 0
    assert message in done.stdout


def test_without_a_test_of_ranks_pytest_imports_no_torch(tmp_path: Path) -> None:
    suite = "import sys\ndef test_light(): assert 'torch' not in sys.modules"
    assert run_pytest(tmp_path, suite).returncode == 0


def test_pdb_stops_the_clock_of_a_run_on_threads(tmp_path: Path) -> None:
    text = """
import pytest, torch, time

@pytest.mark.ranks(2, timeout_s=1)
def test_stops(world):
    if world.rank == 0:
        breakpoint()
    world.barrier()
"""
    (tmp_path / "test_suite.py").write_text(text)
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", "test_suite.py"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as pytest_process:
        assert pytest_process.stdin is not None
        pytest_process.stdin.write(
            "import time; time.sleep(2.5)\nprint('rank is', world.rank)\nc\n"
        )
        out, _ = pytest_process.communicate(timeout=60)
    assert "rank is 0" in out
    assert "1 passed" in out
