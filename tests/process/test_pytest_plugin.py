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

BODIES_THAT_DO_NOT_RUN = """
import unittest
import pytest

on_ranks = pytest.mark.ranks(2, backend=["threads", "gloo"])

@on_ranks
async def test_coroutine_function(world):
    assert False

@on_ranks
async def test_async_generator_function(world):
    assert False
    yield

def generator(world):
    assert False
    yield

async def coroutine(world):
    assert False

class Awaitable:
    def __await__(self):
        raise AssertionError

@on_ranks
def test_generator(world):
    return generator(world)

@on_ranks
def test_coroutine(world):
    return coroutine(world)

@on_ranks
def test_awaitable(world):
    return Awaitable()

@on_ranks
def test_comparison(world):
    return world.rank == 5

class TestInAClass:
    @on_ranks
    async def test_method(self, world):
        assert False

class TestCase(unittest.TestCase):
    @on_ranks
    def test_of_unittest(self):
        pass
"""

OBJECTS = """
import dataclasses
import enum
import pickle
from pathlib import Path
from typing import NamedTuple
import pytest
import torch

with Path(__file__).with_name("imports").open("a") as imports:
    imports.write("once ")

on_ranks = pytest.mark.ranks(2, backend=["threads", "gloo"])

@dataclasses.dataclass
class Metrics:
    loss: float
    class Inner:
        pass

class Phase(enum.Enum):
    TRAIN = 1

class Batch(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor

def twice(x):
    return 2 * x

LAST = Metrics(1.5)

@on_ranks
def test_objects_of_this_module_travel_and_keep_their_class(world):
    assert world.all_gather_object(Metrics(world.rank)) == [Metrics(0), Metrics(1)]
    assert world.broadcast_object(Phase.TRAIN if world.rank == 0 else None) is Phase.TRAIN
    assert world.broadcast_object(twice)(2) == 4
    assert world.all_gather_object(Metrics.Inner)[1] is Metrics.Inner
    assert world.all_gather_object(LAST) == [LAST, LAST]
    whole = Batch(torch.arange(4), torch.arange(4)) if world.rank == 0 else None
    got = world.scatter(whole)
    assert isinstance(got, Batch)
    assert got.x.tolist() == [2 * world.rank, 2 * world.rank + 1]
    assert isinstance(world.all_reduce(Batch(torch.ones(1), torch.ones(1))), Batch)

@on_ranks
def test_they_can_be_pickled_by_others_too(world):
    assert pickle.loads(pickle.dumps(Metrics(2))) == Metrics(2)

@on_ranks
def test_what_no_script_could_send_is_refused(world):
    class Local:
        pass
    for value in (Local(), lambda: 1):
        with pytest.raises(ValueError, match="cannot be pickled"):
            world.all_gather_object(value)
"""

LATE_IMPORT = """
import pytest

class Late:
    pass

class Early:
    pass

@pytest.mark.ranks(2, backend="gloo")
def test_the_module_may_be_imported_on_a_rank(world):
    import test_suite
    assert test_suite.Early is Early
    assert isinstance(world.all_gather_object(test_suite.Late())[1], test_suite.Late)
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


@pytest.mark.long
@pytest.mark.ci_cases(1)
@pytest.mark.parametrize("options", [("-n2",), (), ("--import-mode=importlib",)], ids=str)
def test_a_test_runs_on_every_rank_of_every_world_it_names(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = run_pytest(tmp_path, SUITE, "-rs", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 passed, 4 skipped, 2 xfailed" in done.stdout
    assert "nccl needs 2 GPUs" in done.stdout


def test_a_body_that_is_not_run_to_its_end_fails_on_every_backend(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, BODIES_THAT_DO_NOT_RUN)
    assert "14 failed, 1 error" in done.stdout
    assert "passed" not in done.stdout.splitlines()[-1]
    assert "returned a coroutine, so its body did not run" in done.stdout
    assert "never awaited" not in done.stdout
    assert "not in unittest.TestCase" in done.stdout


@pytest.mark.parametrize("options", [(), ("--import-mode=importlib",)], ids=str)
def test_objects_of_the_tests_own_module_travel_between_ranks(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = run_pytest(tmp_path, OBJECTS, *options)
    assert "6 passed" in done.stdout, done.stdout
    assert (tmp_path / "imports").read_text() == "once "  # no rank has run the module again


def test_a_rank_may_import_the_tests_own_module(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, LATE_IMPORT)
    assert "1 passed" in done.stdout, done.stdout


def test_a_python_that_was_started_by_a_relative_path_runs_ranks(tmp_path: Path) -> None:
    python = Path(sys.executable)
    program = (
        "from distrun.testing import run_ranks\n"
        "if __name__ == '__main__': print(run_ranks(lambda world: world.rank, 1, 'gloo'))"
    )
    done = subprocess.run(
        [f"{python.parent}/../{python.parent.name}/{python.name}", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "[0]\n", done.stderr


def test_the_tests_of_the_page_on_comm_pass_as_they_stand(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "comm.md").read_text()
    blocks = [part.partition("```")[0] for part in page.split("```python\n")[1:]]
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
        ("@pytest.mark.ranks(2)\ndef test_it(): pass", "must take `world`"),
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
