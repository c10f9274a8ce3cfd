"""A rank that waits for others in the code after an exception: the exception is told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import only_run

Run = Callable[..., subprocess.CompletedProcess[str]]
TRAIN = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
try:
    for step in range(5):
        dist.all_reduce(torch.ones(2))
        if dist.get_rank() == 1 and step == 2:
            raise ValueError("the loss is NaN")
finally:
    {cleanup}
"""


@pytest.mark.timeout(100)
@pytest.mark.parametrize(
    "cleanup", ["dist.barrier()", "dist.all_gather_object([None] * 3, dist.get_rank())"]
)
def test_the_exception_before_a_collective_in_a_finally_block_is_in_the_verdict(
    distrun: Run, tmp_path: Path, cleanup: str
) -> None:
    (tmp_path / "train.py").write_text(TRAIN.format(cleanup=cleanup))
    words = ("--nproc-per-node", 3, "--hang-timeout", "3s", "--no-report")
    result = distrun("launch", "--no-check", *words, "train.py", timeout_s=80)
    assert result.returncode == 124, result.stderr
    told = "rank 1 has raised ValueError: the loss is NaN at train.py:8"
    assert told in result.stderr
    assert told in (only_run(tmp_path) / "verdict.json").read_text()
