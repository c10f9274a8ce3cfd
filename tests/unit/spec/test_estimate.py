"""What users write for an estimate is read once; each mistake is named with its cure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distrun.errors import UsageError
from distrun.spec.estimate import Gpus, dims_of, gpus_of, own_kinds
from distrun.spec.estimate_script import read_script, sizes, values_of

RECIPES = Path(__file__).parents[3] / "recipes"
KIND = """
[Fast]
memory-gib = 96
memory-gb-per-s = 4000
tflops = 1000
link-gb-per-s = 400
nics = 8
nic-gbit-per-s = 400
"""


@pytest.mark.parametrize(
    ("text", "nodes", "nproc", "found"),
    [
        ("8x8:h100", None, None, Gpus(8, 8, "h100")),
        ("4:a100-40", None, None, Gpus(1, 4, "a100-40")),
        ("2x4", None, None, Gpus(2, 4, None)),
        ("h200", 4, 8, Gpus(4, 8, "h200")),
        ("4090", 1, 2, Gpus(1, 2, "4090")),
        (None, 2, 4, Gpus(2, 4, None)),
        (None, None, None, Gpus(1, 1, None)),
        ("8x8:h100", 8, 8, Gpus(8, 8, "h100")),
    ],
)
def test_gpus_are_nodes_times_gpus_of_a_kind(
    text: str | None, nodes: int | None, nproc: int | None, found: Gpus
) -> None:
    assert gpus_of(text, nodes, nproc) == found


@pytest.mark.parametrize(
    ("text", "nodes", "nproc", "message"),
    [
        ("8x8:h100", 4, None, "contradict"),
        ("eight", 1, 0, "not from 1"),
        ("x:h100", None, None, "is not NODESxGPUS:KIND"),
        ("0x8:h100", None, None, "0 nodes"),
        ("999999x999999:h100", None, None, "not from 1 to"),
        ("8x8:h100; rm", None, None, "is not NODESxGPUS:KIND"),
    ],
)
def test_gpus_that_cannot_be_are_refused(
    text: str, nodes: int | None, nproc: int | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        gpus_of(text, nodes, nproc)


def test_dims_have_defaults_for_what_most_models_share() -> None:
    dims = dims_of("layers=2,dim=64,heads=4,ffn=128,vocab=100,kv-heads=2,gated=no")
    assert (dims.layers, dims.kv_heads, dims.gated, dims.tied) == (2, 2, False, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers=2", "lacks dim, heads, ffn, vocab"),
        ("layers", "is not NAME=VALUE"),
        ("layers=2,dim=64,heads=4,ffn=128,vocab=1e9", "vocab=1e9 is not a whole number"),
        ("layers=0,dim=64,heads=4,ffn=128,vocab=9", "layers"),
        ("layers=2,dim=64,heads=4,ffn=128,vocab=9,width=3", "width"),
    ],
)
def test_dims_that_cannot_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dims_of(text)


def test_an_own_kind_is_a_table_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "a file.toml"
    file.write_text(KIND)
    assert own_kinds(file)["fast"].tflops == 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[Fast", "is not TOML"),
        ("tflops = 3", "is not a table"),
        (KIND.replace("1000", "-1"), "tflops"),
        (KIND + "colour = 3", "colour"),
    ],
)
def test_an_own_kind_that_cannot_be_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "kinds.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        own_kinds(tmp_path / "kinds.toml")


def test_a_recipe_is_read_without_running_it() -> None:
    script = read_script(RECIPES / "pp.py")
    assert script.settings["accumulate"].default == 4  # its own, not that of every recipe
    assert script.settings["flow"].choices == ("gpipe", "1f1b", "interleaved")
    assert script.settings["precision"].choices[0] == "float32"
    assert script.settings["seq_len"].low == 2
    assert {"pp", "flow", "beside"} <= script.own
    assert script.sizes["8B"]["layers"] == 32
    assert "DistributedDataParallel" in script.calls


def test_a_script_without_the_settings_of_a_recipe_is_told(tmp_path: Path) -> None:
    script = tmp_path / "my train.py"
    script.write_text("import torch\n")
    with pytest.raises(UsageError, match=r"my train\.py has no `class Config\(TextConfig\)`"):
        read_script(script)
    script.write_text("def broken(:\n")
    with pytest.raises(UsageError, match="is not Python, line 1"):
        read_script(script)
    assert sizes(script) == {}


def test_sizes_with_an_annotation_are_read_and_an_expression_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("SIZES: dict = {'tiny': GPTConfig(layers=2)}\n")
    assert sizes(tmp_path / "train.py") == {"tiny": {"layers": 2}}
    (tmp_path / "model.py").write_text("N = 2\nSIZES = {'tiny': GPTConfig(layers=N)}\n")
    with pytest.raises(UsageError, match=r"model\.py, line 2: N in SIZES is not a number"):
        sizes(tmp_path / "train.py")


def test_a_field_of_dataclasses_is_no_flag(tmp_path: Path) -> None:
    for name in ("fsdp.py", "model.py"):
        (tmp_path / name).write_text((RECIPES / name).read_text())
    copy = tmp_path / "fsdp.py"
    field = "    notes: list = dataclasses.field(default_factory=list)\n"
    copy.write_text(re.sub(r"(?m)^(class Config\(.*\n)", rf"\1{field}", copy.read_text()))
    assert "notes" not in read_script(copy).settings


def test_flags_are_read_as_the_recipe_would() -> None:
    settings = read_script(RECIPES / "fsdp.py").settings
    words = ["--size=8B", "--batch-size", "64", "--no-reshard", "--offload", "--no-tied"]
    assert values_of(words, settings, "fsdp.py") == {
        "size": "8B",
        "batch_size": 64,
        "reshard": False,
        "offload": True,
        "tied": False,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batchsize", "4"], "has no flag '--batchsize'"),
        (["--batch-size"], "lacks its value"),
        (["--batch-size", "many"], "is not a number"),
        (["--batch-size", "0"], "is below 1"),
        (["--recompute", "half"], "is not one of none, selective, full"),
        (["loose"], "has no flag 'loose'"),
        (["--compile=false"], "--compile takes no value, and 'false' was given"),
        (["-c"], "has no flag '-c'"),
    ],
)
def test_wrong_flags_of_a_recipe_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        values_of(words, read_script(RECIPES / "fsdp.py").settings, "fsdp.py")
