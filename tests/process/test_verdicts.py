"""What a verdict says beside the rank: the original error, the stacks of a crash, the cure."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import only_run

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.timeout(90)

LOADER = """
from torch.utils.data import DataLoader
class Rows:
    def __len__(self): return 8
    def __getitem__(self, i):
        if i == 3:
            raise KeyError("row 3 has no 'label'")
        return i
for batch in DataLoader(Rows(), batch_size=4, num_workers=2):
    pass
"""


def test_the_error_of_a_worker_is_the_headline_and_the_worker_is_named(
    distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(LOADER)
    done = distrun("launch", "--nproc-per-node", 2, "train.py")
    verdict = json.loads((only_run(tmp_path) / "verdict.json").read_text())
    rank = verdict["rank"]
    headline = f"FAILED: rank {rank} on node0 failed first: KeyError: \"row 3 has no 'label'\""
    assert headline in done.stderr
    assert (verdict["line"], verdict["carrier"]) == (7, f"in DataLoader worker 0 of rank {rank}")
    assert f"\n  in DataLoader worker 0 of rank {rank}\n" in done.stderr
    assert "hint:" not in done.stderr


CRASH = """
import ctypes, faulthandler, sys
print("before the crash")
if sys.argv[1:]:
    faulthandler.enable()
def fall():
    ctypes.string_at(0)
fall()
"""


@pytest.mark.parametrize(
    ("start", "words", "in_log"),
    [
        (["--env", "PYTHONFAULTHANDLER=1"], [], True),
        (["--env", "PYTHONDEVMODE=1", "--start-method", "spawn"], [], True),
        (["--start-method", "spawn"], ["enable"], True),
        (["--start-method", "spawn"], [], False),
    ],
    ids=["warm", "cold", "of the script", "without"],
)
def test_the_stacks_of_a_crash_are_where_python_writes_them_and_the_verdict_says_where(
    distrun: Run, tmp_path: Path, start: list[str], words: list[str], in_log: bool
) -> None:
    (tmp_path / "train.py").write_text(CRASH)
    done = distrun("launch", "--nproc-per-node", 1, *start, "train.py", *words)
    assert done.returncode == 139
    log = (only_run(tmp_path) / "logs/node0/rank0.log").read_text()
    assert ('train.py", line 7 in fall' in log) is in_log
    where = "its log" if in_log else "runs/"
    assert f"the Python stacks of the crash are in {where}" in done.stderr
    assert "at train.py:7" in done.stderr
    assert "the last it printed:\n    before the crash\n  the Python stacks" in done.stderr
    assert 'line 7 in fall' in (only_run(tmp_path) / "stacks/rank0.txt").read_text()  # fmt: skip


SIZES = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
dist.all_reduce(torch.ones(40 + 4000 * dist.get_rank()))
"""
BREAKPOINT = """
import os
if os.environ["RANK"] == "1":
    breakpoint()
    print("on")
"""
ARGUMENT = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--local-rank", type=int, required=True)
parser.parse_args()
"""


@pytest.mark.parametrize(
    ("script", "ranks", "cure"),
    [
        (SIZES, 2, "--env DISTRUN_COMM_CHECK=1 names the two lines"),
        (BREAKPOINT, 2, "--debug-rank 1 gives it to this rank"),
        (ARGUMENT, 2, "replace the argument by int(os.environ['LOCAL_RANK'])"),
    ],
    ids=["wrong sizes", "breakpoint", "--local-rank"],
)
def test_the_cure_is_the_hint(
    distrun: Run, tmp_path: Path, script: str, ranks: int, cure: str
) -> None:
    (tmp_path / "train.py").write_text(script)
    done = distrun("launch", "--nproc-per-node", ranks, "train.py")
    assert done.returncode != 0
    hint, *_ = [line for line in done.stderr.splitlines() if line.startswith("  hint: ")]
    assert hint.endswith(cure)
    record = json.loads((only_run(tmp_path) / "verdict.json").read_text())
    assert hint == f"  hint: {record['cure']}"
