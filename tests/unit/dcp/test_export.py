"""One safetensors file out of the chunks that ranks wrote."""

from __future__ import annotations

import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from distrun.dcp.export import export
from distrun.dcp.metadata import METADATA, CheckpointError, read_metadata
from distrun.dcp.storage import sha256
from tests.unit.dcp import save_checkpoint
from tests.unit.dcp.test_storage import SHARD, flip

MODEL = {
    "embed.weight": torch.arange(12.0).reshape(3, 4),
    "a.flag": torch.tensor([True, False, True]),
    "a.half": torch.arange(5, dtype=torch.bfloat16),
    "a.scalar": torch.tensor(3, dtype=torch.int64),
    "a.none": torch.zeros(0, 4),
    "z.wide": torch.arange(3, dtype=torch.float64),
}
OUT = "model.safetensors"


def state(scale: float = 1) -> dict[str, Tensor]:
    model = {f"model.{name}": (t * scale).to(t.dtype) for name, t in MODEL.items()}
    return {**model, "optim.embed.weight.exp_avg": torch.ones(3, 4), "train.step": torch.tensor(4)}


def test_the_file_holds_the_model_under_its_plain_names_and_nothing_else(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "step-4", 4, state())
    told = export(tmp_path / "step-4", tmp_path / OUT)
    found = load_file(tmp_path / OUT)
    assert found.keys() == MODEL.keys()
    for name, tensor in MODEL.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].equal(tensor), name
    with safe_open(tmp_path / OUT, "pt") as file:
        assert file.metadata() == {"format": "pt", "step": "4"}
    assert (told["step"], told["tensors"], told["parameters"]) == (4, 6, 24)
    assert sorted(path.name for path in tmp_path.iterdir()) == [OUT, "step-4"]


def test_of_a_directory_the_newest_good_one_is_taken(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path / f"step-{step}", step, state(step))
    flip(tmp_path / "step-3" / SHARD, -1)
    told = export(tmp_path, tmp_path / OUT)
    assert told["checkpoint"] == str(tmp_path / "step-2")
    assert load_file(tmp_path / OUT)["embed.weight"].equal(MODEL["embed.weight"] * 2)
    assert "step-3" in told["passed_over"][0] and "SHA-256" in told["passed_over"][0]


def test_where_none_is_whole_the_newest_is_told_and_nothing_written(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path / f"step-{step}", step, state())
        (tmp_path / f"step-{step}" / SHARD).unlink()
    with pytest.raises(CheckpointError, match=r"none of 2 checkpoints is whole: .*step-2/rank-0"):
        export(tmp_path, tmp_path / OUT)
    assert not (tmp_path / OUT).exists()


def test_a_checkpoint_without_a_model_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "step-1", 1, {"train.step": torch.tensor(1)})
    with pytest.raises(CheckpointError, match="step-1 holds no model"):
        export(tmp_path, tmp_path / OUT)


def tampered(path: Path, **changes: object) -> None:
    """Change what `.metadata` says of the embedding, as somebody who can hash would."""
    metadata = read_metadata(path)
    for index, info in dict(metadata.storage_data).items():
        if index.fqn == "model.embed.weight":
            del metadata.storage_data[index]
            if changes:
                info.relative_path = changes.get("relative_path", info.relative_path)
                metadata.storage_data[index] = info
    described = metadata.state_dict_metadata["model.embed.weight"]
    described.size = changes.get("size", described.size)
    (path / METADATA).write_bytes(pickle.dumps(metadata, 4))
    manifest = (path / "manifest.json").read_text()
    entries = manifest.split('"sha256": "')
    entries[1] = sha256(path / METADATA) + entries[1][64:]
    before, _, after = entries[1].partition('"nbytes": ')
    nbytes = (path / METADATA).stat().st_size
    entries[1] = f'{before}"nbytes": {nbytes}{after.lstrip("0123456789")}'
    (path / "manifest.json").write_text('"sha256": "'.join(entries))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"relative_path": "../secret.safetensors"}, "which is outside of"),
        ({"relative_path": "/etc/passwd"}, "which is outside of"),
        ({"relative_path": ".."}, "which is outside of"),
        ({"relative_path": "gone.safetensors"}, "gone.safetensors cannot be read"),
        ({"relative_path": "manifest.json"}, "manifest.json cannot be read"),
        ({"size": torch.Size([4, 4])}, "describes 'model.embed.weight' with 12 of its 16 numbers"),
        ({"size": torch.Size([2, 2])}, "with a chunk that reaches beyond it"),
        ({"size": "wide"}, "TensorStorageMetadata.size is a str"),
        ({"size": torch.Size([1 << 50, 1 << 10])}, f"with 12 of its {1 << 60} numbers"),
        ({}, "does not place each chunk in a file"),
    ],
)
def test_metadata_that_lies_is_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    save_checkpoint(tmp_path / "step-1", 1, state())
    (tmp_path / OUT).write_text("before")
    tampered(tmp_path / "step-1", **changes)
    with pytest.raises(CheckpointError) as refused:
        export(tmp_path, tmp_path / OUT)
    assert said in str(refused.value) and str(tmp_path / "step-1") in str(refused.value)
    assert (tmp_path / OUT).read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == [OUT, "step-1"]


def test_a_disk_that_is_full_keeps_the_file_that_was_there(tmp_path: Path) -> None:
    big = {"model.w": torch.zeros(1 << 20)}
    save_checkpoint(tmp_path / "step-1", 1, big)
    (tmp_path / OUT).write_text("before")
    words = [sys.executable, "-m", "distrun.dcp.export", str(tmp_path), str(tmp_path / OUT)]
    child = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    assert f'{{"machine": "{tmp_path / OUT}: File too large"}}' in child.stdout, child.stderr
    assert (tmp_path / OUT).read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == [OUT, "step-1"]
