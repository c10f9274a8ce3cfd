"""A trained model as a program: it computes what the model does, and needs no recipe."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from distrun.api import export as exporting
from distrun.errors import MachineError
from tests.recipes.launching import RECIPES, Finished, run_python

Recipe = Callable[[str], ModuleType]
FEW = shlex.split("--steps 2 --batch-size 4 --seq-len 32 --eval-batches 1 --checkpoint-dir kept")
WITH = ("--script", RECIPES / "single.py")
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which single.py has kept a checkpoint."""
    cwd = tmp_path_factory.mktemp("trained")
    run = run_python(cwd, RECIPES / "single.py", *FEW)
    assert run.code == 0, run.err
    return cwd


def export(cwd: Path, *words: object) -> Finished:
    return run_python(cwd, "-m", "distrun", "recipes", "export", *words)


def by_onnxruntime(file: Path, tokens: Tensor) -> Tensor:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": tokens.numpy()})[0])


def by_torch(file: Path, tokens: Tensor) -> Tensor:
    found: Tensor = torch.export.load(file).module()(tokens)
    return found


@pytest.mark.long
@pytest.mark.parametrize(("name", "run"), [("m.onnx", by_onnxruntime), ("m.pt2", by_torch)])
def test_a_program_computes_what_the_model_does_for_any_batch_and_length(
    recipe: Recipe, trained: Path, name: str, run: Callable[[Path, Tensor], Tensor]
) -> None:
    if name.endswith(".onnx"):
        pytest.importorskip("onnxruntime")
    done = export(trained, "kept", "-o", name, *WITH)
    assert done.code == 0, done.err
    wrote, checked = done.out.splitlines()
    assert wrote.startswith(f"wrote {name}: 39 tensors, 246,336 numbers, of ")
    assert checked.startswith("input [batch, time]; its results differ from the model's by at most")
    weights = load_file(trained / "kept" / "step-00000002" / "rank-00000.safetensors")
    model = recipe("single").build_model(recipe("single").Config())
    stored = {k.removeprefix("model."): t for k, t in weights.items() if k.startswith("model.")}
    names = model.state_dict()
    model.load_state_dict({n: next(t for k, t in stored.items() if k.startswith(n)) for n in names})
    for shape in ((1, 7), (5, 32)):
        tokens = torch.randint(256, shape, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(run(trained / name, tokens), model(tokens), rtol=1e-4, atol=1e-4)
    assert not [path for path in trained.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        ("kept -o m.pt2", "/kept is not in the directory of a run: its script is not known", 2),
        ("kept -o m.pt2 --script gone.py", "script 'gone.py' does not exist", 2),
        ("kept -o m.onnx --format torch-export", "'.onnx' is not one of .pt2", 2),
        ("kept -o m.pt2 --script empty.py", "empty.py has no Config, which a recipe has", 1),
        ("kept -o m.pt2 --script fails.py", "fails.py cannot be imported: KeyError: 'x'", 1),
        ("kept -o m.pt2 --script {recipes}/ddp.py", "build_model of {recipes}/ddp.py does not", 1),
    ],
)
@pytest.mark.ci_cases(3)
def test_what_is_no_program_is_refused_in_a_sentence(
    trained: Path, tmp_path: Path, words: str, said: str, code: int
) -> None:
    shutil.copytree(trained / "kept", tmp_path / "kept")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "fails.py").write_text("{}['x']")
    done = export(tmp_path, *words.format(recipes=RECIPES).split())
    assert (done.code, done.out) == (code, ""), done.err
    assert said.format(recipes=RECIPES) in done.err
    assert "Traceback" not in done.err
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".pt2", ".onnx")]


def test_a_script_of_ones_own_gives_an_input_of_its_own(trained: Path, tmp_path: Path) -> None:
    for name in ("dp.py", "data.py", "digits.npz", "model.py"):
        shutil.copy(RECIPES / name, tmp_path)
    own = (tmp_path / "dp.py").read_text().replace("def example(", "def another(")
    (tmp_path / "mine.py").write_text(own)
    saving = ("--steps", 2, "--checkpoint-dir", "kept", "--hidden", 8)
    assert run_python(tmp_path, "mine.py", *saving).code == 0
    refused = export(tmp_path, "kept", "-o", "m.pt2", "--script", "mine.py")
    assert refused.code == 1
    assert "has no function example(config) that returns an input" in refused.err
    done = export(tmp_path, "kept", "-o", "m.pt2", "--script", "dp.py", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["input"] == ["batch", 8, 8]
    assert told["largest_difference"] <= 1e-5 * told["largest_result"]
    assert by_torch(tmp_path / "m.pt2", torch.rand(7, 8, 8)).shape == (7, 10)


def test_a_missing_package_is_told_with_what_installs_it(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_FOR_ONNX", ("onnx_of_another_world",))
    with pytest.raises(MachineError, match="onnx_of_another_world") as error:
        exporting.export(trained / "kept", tmp_path / "m.onnx", RECIPES / "single.py")
    assert "pip install" in str(error.value.hint) and "onnx]" in str(error.value.hint)
