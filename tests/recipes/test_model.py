"""The model by itself, and what it writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.recipes.launching import RECIPES, run_python

Recipe = Callable[[str], ModuleType]

COMPILED = f"""
import sys
sys.path.insert(0, {str(RECIPES)!r})
import torch
from torch._dynamo.utils import counters
from model import GPT, model_config, prepare_blocks

compile = torch.nn.Module.compile
torch.nn.Module.compile = lambda module: compile(module, backend="aot_eager")
tokens, losses = torch.arange(32).view(2, 16), []
for compile_them in (False, True):
    model = GPT(model_config("tiny")).init_weights(0)
    prepare_blocks(model.blocks.values(), sys.argv[1], compile_them)
    loss = model(tokens).logsumexp(-1).mean()
    loss.backward()
    losses += [loss.item(), model.blocks["0"].attention.q.weight.grad.norm().item()]
print(counters["stats"]["unique_graphs"], losses)
loss, norm, compiled_loss, compiled_norm = losses
assert abs(loss - compiled_loss) < 1e-5 and abs(norm / compiled_norm - 1) < 1e-4
"""


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_blocks_are_compiled_once_for_all_whatever_they_recompute(
    tmp_path: Path, recompute: str
) -> None:
    run = run_python(tmp_path, "-W", "ignore", "-c", COMPILED, recompute)
    assert run.code == 0, run.err
    assert run.out.split()[0] == "1", run.out


def test_bytes_are_written_as_text_and_tokens_of_a_larger_vocabulary_as_numbers(
    recipe: Recipe,
) -> None:
    as_text = recipe("data").as_text
    assert as_text(torch.tensor([104, 105, 255])) == "hi\N{REPLACEMENT CHARACTER}"
    assert as_text(torch.tensor([104, 256])) == "104 256"


@pytest.mark.parametrize(("size", "tied"), [("tiny", False), ("124M", True), ("8B", False)])
def test_a_size_is_tied_as_it_is_known_unless_another_is_asked_for(
    recipe: Recipe, size: str, tied: bool
) -> None:
    model_config = recipe("model").model_config
    assert model_config(size).tied is tied
    for asked in (True, False):
        assert model_config(size, tied=asked).tied is asked
