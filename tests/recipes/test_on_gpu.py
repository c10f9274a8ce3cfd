"""The GPT on a GPU, through NCCL."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.recipes.launching import RECIPES, torchrun

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


@pytest.mark.parametrize("name", ["ddp_gpt", "fsdp"])
def test_124m_trains_in_bfloat16_and_tells_its_mfu(tmp_path: Path, name: str) -> None:
    words = ("--size", "124M", "--seq-len", 1024, "--batch-size", 8, "--steps", 10, "--compile")
    run = torchrun(tmp_path, 1, RECIPES / f"{name}.py", *words, "--precision", "bfloat16")
    assert run.code == 0, run.err
    assert "world size 1: nccl on cuda" in run.out
    assert run.losses[-1] < run.losses[0]
    assert re.search(r"  mfu \d+\.\d%", run.out)


def test_context_parallel_of_torch_is_the_ring(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("fewer than 2 GPUs")
    runs = [
        torchrun(tmp_path, 2, RECIPES / "cp.py", "--steps", 5, "--attention", attention)
        for attention in ("ring", "torch")
    ]
    assert runs[0].code == runs[1].code == 0, runs[1].err
    assert runs[1].losses == pytest.approx(runs[0].losses, rel=1e-3)
