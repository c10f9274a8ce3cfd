"""A checkpoint is whole or refused by name; nothing that it holds is executed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from distrun.dcp.choose import committed, newest_good
from distrun.dcp.metadata import METADATA, CheckpointError
from distrun.dcp.storage import verify
from tests.conftest import wait_until
from tests.unit.dcp import load_checkpoint, save_checkpoint

SHARD = "rank-00000.safetensors"
STATE = {
    "model.weight": torch.arange(12.0).reshape(3, 4),
    "model.scale": torch.tensor(2.5, dtype=torch.float64),
    "train.step": torch.tensor(7),
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "step-00000007"
    save_checkpoint(path, 7, STATE)
    return path


def test_what_was_saved_is_read_back(saved: Path) -> None:
    assert verify(saved) == 7
    found = {name: torch.zeros_like(tensor) for name, tensor in STATE.items()}
    load_checkpoint(saved, found)
    assert all(found[name].equal(tensor) for name, tensor in STATE.items())
    assert sorted(path.name for path in saved.parent.iterdir()) == [saved.name]


# --- damage ------------------------------------------------------------------------------


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def replace_by_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


Damage = Callable[[Path], object]
DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "the last byte of a shard": (lambda p: flip(p / SHARD, -1), SHARD, "SHA-256"),
    "the first byte of a shard": (lambda p: flip(p / SHARD, 0), SHARD, "SHA-256"),
    "a byte of the metadata": (lambda p: flip(p / METADATA, 20), METADATA, "SHA-256"),
    "a truncated shard": (lambda p: truncate(p / SHARD), SHARD, "bytes, not"),
    "a shard without a byte": (lambda p: (p / SHARD).write_bytes(b""), SHARD, "has 0 bytes"),
    "a shard too long": (lambda p: (p / SHARD).write_bytes(b"x" * 9999), SHARD, "has 9999 bytes"),
    "a FIFO as a shard": (lambda p: replace_by_fifo(p / SHARD), SHARD, "not a regular file"),
    "a FIFO as manifest": (
        lambda p: replace_by_fifo(p / "manifest.json"),
        "manifest.json",
        "not a regular file",
    ),
    "no shard": (lambda p: (p / SHARD).unlink(), SHARD, "No such file"),
    "no metadata": (lambda p: (p / METADATA).unlink(), METADATA, "No such file"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "manifest.json", "No such file"),
    **{
        f"a manifest of {text!r}": (
            lambda p, text=text: (p / "manifest.json").write_bytes(text),  # type: ignore[misc]
            "manifest.json",
            "is not the manifest of a checkpoint",
        )
        for text in (
            *(b"", b"{", b"[]", b"5", b"\xff", b'{"step": 1}', b'{"step": "x", "files": {}}'),
            b'{"step": 1, "files": 5}',
            b'{"step": Infinity, "files": {".metadata": {"nbytes": 1, "sha256": ""}}}',
            b"[" * 100_000,
        )
    },
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_the_file_named(saved: Path, damage: str) -> None:
    do, file, cause = DAMAGES[damage]
    do(saved)
    with pytest.raises(CheckpointError) as refused:
        verify(saved)
    assert str(saved) in str(refused.value) and file in str(refused.value)
    assert cause in str(refused.value)


@pytest.mark.parametrize("entry", [5, {}, {"nbytes": 7}])
def test_a_manifest_with_entries_that_are_none_is_refused(saved: Path, entry: object) -> None:
    (saved / SHARD).write_bytes(b"7 bytes")
    (saved / "manifest.json").write_text(json.dumps({"step": 1, "files": {SHARD: entry}}))
    with pytest.raises(CheckpointError, match="manifest"):
        verify(saved)


def test_a_manifest_that_lists_nothing_vouches_for_nothing(saved: Path) -> None:
    (saved / "manifest.json").write_text(json.dumps({"step": 1, "files": {}}))
    with pytest.raises(CheckpointError, match="manifest"):
        verify(saved)


@pytest.mark.parametrize("name", ["../other", "/etc/passwd", "..", "", "a\0b", "\ud800"])
def test_a_name_that_leaves_the_directory_is_refused(saved: Path, name: str) -> None:
    entry = {"nbytes": 1, "sha256": "0"}
    files = {".metadata": entry, name: entry}
    (saved / "manifest.json").write_text(json.dumps({"step": 1, "files": files}))
    with pytest.raises(CheckpointError, match="is outside of it"):
        verify(saved)


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"nowhere is not a checkpoint: manifest\.json: No such"
    ):
        verify(tmp_path / "nowhere")


def test_a_checkpoint_that_another_program_wrote_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(dict(STATE), storage_writer=FileSystemWriter(tmp_path / "step-1"), no_dist=True)
    with pytest.raises(CheckpointError, match=r"step-1 is not a checkpoint: manifest\.json"):
        verify(tmp_path / "step-1")


def test_the_newest_that_is_whole_is_chosen_and_the_others_are_told(saved: Path) -> None:
    for step in (8, 9):
        save_checkpoint(saved.parent / f"step-{step:08d}", step, STATE)
    flip(saved.parent / "step-00000008" / SHARD, -1)
    (saved.parent / "step-00000009" / SHARD).unlink()
    path, problems = newest_good(committed(saved.parent))
    assert path == saved
    assert ["00000009" in problems[0], "00000008" in problems[1]] == [True, True]


# --- a kill in mid-save ------------------------------------------------------------------

SAVES = """
import itertools, pathlib, sys, time, torch
from torch.distributed.checkpoint import DefaultSavePlanner
from torch.distributed.checkpoint.state_dict_saver import save
from distrun.dcp.storage import Writer

class Stuck(DefaultSavePlanner):
    def resolve_data(self, item):
        while step == stuck_at:
            time.sleep(1)
        return super().resolve_data(item)

stuck_at = int(sys.argv[1])
for step in itertools.count(1):
    writer = Writer(pathlib.Path(f"step-{step:08d}"), step)
    tensors = {f"model.{i}": torch.full((100_000,), float(step)) for i in range(10)}
    save(tensors, storage_writer=writer, planner=Stuck(), no_dist=True)
"""


def test_a_step_is_saved_again_where_an_earlier_save_was_killed_at_its_end(saved: Path) -> None:
    leftover = saved.with_name(saved.name + ".replaced")
    shutil.copytree(saved, leftover)
    save_checkpoint(saved, 7, {"model.weight": torch.ones(3)})
    assert not leftover.exists()
    assert verify(saved) == 7


@pytest.mark.parametrize("stuck_at", [3, 0], ids=["known to be in mid-save", "at any moment"])
def test_a_kill_in_mid_save_leaves_the_previous_checkpoint(tmp_path: Path, stuck_at: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SAVES, str(stuck_at)], cwd=tmp_path
    )
    try:
        wait_until((tmp_path / "step-00000002").exists, 60)
        wait_until(lambda: any(tmp_path.glob("*.partial")) or child.poll() is not None)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    if stuck_at:
        assert (tmp_path / "step-00000003.partial").is_dir()
    path, problems = newest_good(committed(tmp_path))
    assert path is not None and not problems
    step = verify(path)
    assert step == 2 if stuck_at else step >= 2
    found = {"model.9": torch.zeros(100_000)}
    load_checkpoint(path, found)
    assert found["model.9"].eq(step).all()
