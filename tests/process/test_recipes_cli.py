"""`distrun recipes` as a user runs it: to read, to copy, to compare, to export."""

from __future__ import annotations

import ast
import difflib
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distrun.api.recipes import NAMES
from distrun.env import scrubbed
from tests.conftest import only_run

Run = Callable[..., subprocess.CompletedProcess[str]]
RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = shlex.split("--steps 3 --batch-size 4 --seq-len 32 --eval-every 0")


def on_a_terminal(command: list[str], *words: str) -> str:
    """Run `distrun …` with a terminal as its stdout; return what it printed there."""
    ours, theirs = pty.openpty()
    environ = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    child = subprocess.Popen(
        [*command, *words], stdout=theirs, stdin=theirs, env={**environ, "TERM": "xterm-256color"}
    )
    os.close(theirs)
    printed = b""
    try:
        while block := os.read(ours, 1 << 16):
            printed += block
    except OSError:
        pass  # how Linux tells the end of a terminal
    os.close(ours)
    assert child.wait(30) == 0
    return printed.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", text)


# --- to read ---------------------------------------------------------------------------


def test_the_list_names_every_recipe_in_the_order_to_read_them_in(distrun: Run) -> None:
    header, *rows = distrun("recipes", "list").stdout.splitlines()
    listed = json.loads(distrun("recipes", "list", "--json").stdout)
    assert [recipe["name"] for recipe in listed] == [row.split()[0] for row in rows]
    assert header.split()[:3] == ["name", "strategy", "ranks"]
    assert [row.split()[0] for row in rows] == list(NAMES)
    programs = {path.stem for path in RECIPES.glob("*.py") if "__main__" in path.read_text()}
    assert programs == set(NAMES), "a new recipe has its place in api.recipes.NAMES"
    fsdp = next(row for row in rows if row.startswith("fsdp "))
    title = (ast.get_docstring(ast.parse((RECIPES / "fsdp.py").read_text())) or "").splitlines()[0]
    assert fsdp.split(maxsplit=3) == ["fsdp", "fsdp", "2", title]


def test_show_and_path_give_the_file_itself(distrun: Run, command: list[str]) -> None:
    source = (RECIPES / "single.py").read_text()
    assert distrun("recipes", "show", "single").stdout == source
    coloured = on_a_terminal(command, "recipes", "show", "single")
    assert "\x1b[" in coloured and plain(coloured) == source
    assert distrun("recipes", "path", "3d").stdout == f"{RECIPES / 'pp_fsdp_tp.py'}\n"
    assert distrun("recipes", "path", "ep").stdout == f"{RECIPES / 'moe.py'}\n"


def test_diff_is_that_of_diff_and_coloured_on_a_terminal(
    distrun: Run, command: list[str], tmp_path: Path
) -> None:
    a, b = ((RECIPES / name).read_text() for name in ("ddp_gpt.py", "zero1.py"))
    lines = difflib.unified_diff(a.splitlines(True), b.splitlines(True), "ddp_gpt.py", "zero1.py")
    expected = "".join(lines)
    assert expected.count("\n+") > 5
    result = distrun("recipes", "diff", "ddp_gpt", "zero1")
    assert (result.returncode, result.stdout) == (0, expected)
    coloured = on_a_terminal(command, "recipes", "diff", "ddp_gpt", "zero1")
    assert "\x1b[" in coloured and plain(coloured) == expected
    assert distrun("recipes", "diff", "single", "single").stdout == ""
    (tmp_path / "mine.py").write_text(a + "print('mine')\n")
    assert distrun("recipes", "diff", "ddp_gpt", "mine.py").stdout.endswith("\n+print('mine')\n")


# --- to copy ---------------------------------------------------------------------------


def test_a_copy_brings_what_it_imports_and_runs_by_every_launcher(
    distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "my project").mkdir()
    copied = distrun("recipes", "copy", "ddp_gpt", "my project/my train.py")
    assert copied.stdout.splitlines() == [
        *(f"wrote my project/{name}" for name in ("data.py", "model.py", "digits.npz")),
        *("wrote my project/my train.py", "run it: distrun launch 'my project/my train.py'"),
    ]
    script = tmp_path / "my project" / "my train.py"
    for launcher in (
        ["-m", "distrun", "launch"],
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
        [],
    ):
        result = subprocess.run(
            [sys.executable, *launcher, str(script), *SMALL, "--no-save"],
            cwd=tmp_path,
            env={**scrubbed(os.environ), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr
        assert "step 3/3  validation loss " in result.stdout


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_copied_with_all_that_it_needs(
    distrun: Run, tmp_path: Path, name: str
) -> None:
    assert distrun("recipes", "copy", name).returncode == 0
    here = {path.name for path in tmp_path.iterdir()}
    for path in tmp_path.glob("*.py"):
        assert path.read_bytes() == (RECIPES / path.name).read_bytes()
        words = set(re.findall(r"^(?:from|import) (\w+)", path.read_text(), re.M))
        assert {f"{word}.py" for word in words if (RECIPES / f"{word}.py").exists()} <= here
        if "digits.npz" in path.read_text():
            assert "digits.npz" in here


def test_a_second_copy_shares_what_is_there_and_a_directory_is_enough(
    distrun: Run, tmp_path: Path
) -> None:
    distrun("recipes", "copy", "single", tmp_path)
    lines = distrun("recipes", "copy", "fsdp", tmp_path).stdout.splitlines()
    assert lines[0] == f"wrote {tmp_path}/fsdp.py"
    assert f"{tmp_path}/model.py is there already" in lines
    again = distrun("recipes", "copy", "fsdp")
    assert "wrote" not in again.stdout and again.returncode == 0


def test_nothing_is_overwritten_unless_forced(distrun: Run, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("# mine\n")
    refused = distrun("recipes", "copy", "fsdp")
    assert refused.returncode == 2
    assert "error: model.py exists and is a different file" in refused.stderr
    assert "--force" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.py"], "all or nothing"
    assert (tmp_path / "model.py").read_text() == "# mine\n"
    assert distrun("recipes", "copy", "--force", "fsdp").returncode == 0
    assert (tmp_path / "model.py").read_bytes() == (RECIPES / "model.py").read_bytes()


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (("copy", "fdsp"), "no recipe has the name 'fdsp'", "did you mean 'fsdp'?"),
        (("show", "data"), "no recipe has the name 'data'", ""),
        (("path", "../setup"), "no recipe has the name '../setup'", ""),
        (("diff", "fsdp", "gone.py"), "script 'gone.py' does not exist", "recipes list"),
        (("diff", "fsdp", "binary.py"), "binary.py cannot be read: it is not text", ""),
        (("copy", "fsdp", "x/y.py"), "'x/y.py': there is no directory 'x'", "mkdir -p x"),
        (
            ("copy", "fsdp", "train"),
            "'train' is neither a directory nor the name of a script",
            ".py",
        ),
        (("copy", "fsdp", "data.py"), "data.py would replace the module 'data'", "my_"),
        (("copy", "fsdp", "torch.py"), "torch.py would replace the module", "my_torch"),
        (("copy", "fsdp", "queue.py"), "queue.py would replace the module", "my_queue"),
        (("copy", "fsdp", "folder.py"), "folder.py/fsdp.py exists and is a diff", "--force"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    distrun: Run, tmp_path: Path, words: tuple[str, str], said: str, hint: str
) -> None:
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\0")
    (tmp_path / "folder.py" / "fsdp.py").mkdir(parents=True)
    result = distrun("recipes", *words)
    assert (result.returncode, result.stdout) == (2, "")
    error, *hints = result.stderr.splitlines()
    assert error.startswith(f"distrun: error: {said}")
    assert hint in "".join(hints)


# --- to export -------------------------------------------------------------------------

SCORES = """
import sys, single, torch
from data import Shard, open_text
from model import GPT, model_config
from safetensors.torch import load_file
from distrun.train.config import parse

config = parse(single.Config, words=sys.argv[2:])
model = GPT(model_config(config.size))
model.load_state_dict(load_file(sys.argv[1]), strict=True)
validation = open_text(config, Shard())[1]
print(single.evaluate(model, validation, config, torch.device("cpu")).item())
"""


@pytest.mark.parametrize(("name", "ranks"), [("single", 1), ("fsdp", 2)])
def test_an_exported_model_has_the_loss_that_its_run_ended_with(
    distrun: Run, tmp_path: Path, name: str, ranks: int
) -> None:
    for each in (name, "single"):
        distrun("recipes", "copy", each)
    launched = distrun("launch", "--nproc-per-node", ranks, f"{name}.py", *SMALL)
    assert launched.returncode == 0, launched.stderr
    exported = distrun("recipes", "export", "latest", "-o", "model.safetensors")
    assert exported.returncode == 0, exported.stderr
    assert exported.stdout.startswith("wrote model.safetensors: 39 tensors, 246,336 numbers, of ")
    assert exported.stdout.endswith("step-00000003 after step 3\n")
    (tmp_path / "score.py").write_text(SCORES)
    words = [sys.executable, "score.py", "model.safetensors", *SMALL]
    scored = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    lines = (only_run(tmp_path) / "metrics.jsonl").read_text().splitlines()
    (line,) = (line for line in lines if "validation_loss" in line)
    expected = json.loads(line)["validation_loss"]
    assert float(scored.stdout) == pytest.approx(expected, abs=1e-6), scored.stderr


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The directory of a run that has saved nothing."""
    directory = tmp_path / "runs" / "20261121-002312-train-af7f"
    (directory / "checkpoints").mkdir(parents=True)
    record = {"recipe": "train.py", "nnodes": 1, "nproc_per_node": 1, "started_at": 1.0}
    (directory / "run.json").write_text(json.dumps({"run_id": directory.name, **record}))
    return directory


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("latest", "m.safetensors"), "there is no checkpoint in {run}/checkpoints", 2),
        (("af7f", "m.safetensors"), "there is no checkpoint in {run}/checkpoints", 2),
        (("nope", "m.safetensors"), "no run has the name 'nope'", 2),
        (("folder", "m.safetensors"), "there is no checkpoint in folder", 2),
        (("broken", "m.pt"), "-o m.pt: the ending names the format, and '.pt' is not one of", 2),
        (("latest", "x/m.safetensors"), "x/m.safetensors cannot be written", 2),
        (("broken", "m.safetensors"), "{here}/broken/step-5 is not a checkpoint: manifest.json", 1),
        (("broken/step-5", "m.safetensors"), "{here}/broken/step-5 is not a checkpoint: man", 1),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_sentence(
    distrun: Run, run: Path, tmp_path: Path, words: tuple[str, str], said: str, code: int
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken" / "step-5").mkdir(parents=True)
    word, file = words
    result = distrun("recipes", "export", word, "-o", file)
    expected = "distrun: error: " + said.format(run=run, here=tmp_path)
    assert result.stderr.startswith(expected), result.stderr
    assert (result.returncode, result.stdout) == (code, "")
    assert not list(tmp_path.glob("*.safetensors"))
