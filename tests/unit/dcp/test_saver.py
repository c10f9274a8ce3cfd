"""One rank saves: what is on disk when, what is left of a save that failed, and what is told."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.state_dict_saver import save

from distrun.dcp import storage
from distrun.dcp.choose import committed
from distrun.dcp.metadata import CheckpointError
from distrun.dcp.saver import Saver, new_group
from distrun.dcp.storage import verify
from tests.unit.dcp import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def group() -> Iterator[dist.ProcessGroup]:
    """A world of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield new_group()
    dist.destroy_process_group()


@pytest.fixture(autouse=True)
def torchs_words() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that its saving of typed storage will change
        yield


class Saving:
    """A saver, and what it has said."""

    def __init__(self, directory: Path, group: dist.ProcessGroup, keep: int = 2) -> None:
        self.said: list[str] = []
        self.it = Saver(directory, group, keep, {"run": "r1"}, self.said.append)


@pytest.fixture
def saving(tmp_path: Path, group: dist.ProcessGroup) -> Saving:
    return Saving(tmp_path / "kept", group)


def state(value: float = 1.0) -> dict[str, Tensor]:
    return {"model.weight": torch.full((4,), value)}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_was_saved_is_whole_and_the_oldest_give_way(saving: Saving, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        assert saving.it.save(step, lambda value=step: state(value))
    saving.it.finish(last=True)
    assert names(tmp_path / "kept") == ["step-00000002", "step-00000003"]
    newest = tmp_path / "kept" / "step-00000003"
    assert saving.it.latest == str(newest) and verify(newest) == 3
    found = {"model.weight": torch.zeros(4)}
    load_checkpoint(newest, found)
    assert found["model.weight"].tolist() == [3.0] * 4
    assert saving.said == []


def test_what_is_saved_is_the_state_of_that_moment(saving: Saving, tmp_path: Path) -> None:
    weight = torch.ones(4)
    saving.it.save(1, lambda: {"model.weight": weight})
    weight.fill_(9.0)  # training goes on
    saving.it.finish()
    found = {"model.weight": torch.zeros(4)}
    load_checkpoint(tmp_path / "kept" / "step-00000001", found)
    assert found["model.weight"].tolist() == [1.0] * 4


def test_the_latest_is_told_only_when_it_is_finished(saving: Saving) -> None:
    saving.it.look()
    saving.it.finish()
    assert saving.it.latest == ""
    saving.it.save(1, state)
    assert saving.it.latest == ""
    saving.it.save(2, state)
    assert saving.it.latest.endswith("step-00000001")
    pending = saving.it._pending
    assert pending is not None
    pending.result()  # type: ignore[union-attr]
    saving.it.look()
    assert saving.it.latest.endswith("step-00000002")


@pytest.mark.parametrize(
    ("name", "value", "saved"),
    [
        ("model.weight", float("nan"), False),
        ("model.weight", float("inf"), False),
        ("rng.gauss", float("nan"), True),  # there NaN means that there is none
    ],
)
def test_a_state_that_is_not_finite_is_not_saved(
    saving: Saving, tmp_path: Path, name: str, value: float, saved: bool
) -> None:
    bad = {name: torch.tensor([1.0, value]), "train.step": torch.tensor(3)}
    assert saving.it.save(1, lambda: bad) == saved
    saving.it.finish()
    assert len(names(tmp_path / "kept")) == saved


def test_what_a_killed_save_has_left_is_not_mixed_with_the_next(
    saving: Saving, tmp_path: Path
) -> None:
    partial = tmp_path / "kept" / "step-00000001.partial"
    partial.mkdir()
    (partial / "rank-00007.safetensors").write_bytes(b"of a larger world")
    saving.it.save(1, state)
    saving.it.finish()
    assert names(tmp_path / "kept") == ["step-00000001"]
    found = names(tmp_path / "kept" / "step-00000001")
    assert found == [".metadata", "manifest.json", "rank-00000.safetensors"]


def test_a_save_that_fails_is_told_and_leaves_nothing_and_the_last_one_is_an_error(
    saving: Saving, tmp_path: Path
) -> None:
    saving.it.save(1, state)
    saving.it.finish()
    for step, last in ((2, False), (3, True)):
        blocker = tmp_path / "kept" / f"step-{step:08d}.replaced"
        save_checkpoint(tmp_path / "kept" / f"step-{step:08d}", step, state())
        blocker.write_text("in the commit's way")
        saving.it.save(step, state)
        if last:
            with pytest.raises(CheckpointError, match="step-00000003 could not be written: "):
                saving.it.finish(last=True)
        else:
            saving.it.finish()
            (said,) = saving.said
            assert "step-00000002 could not be written: " in said
            assert said.endswith("; training goes on")
        assert not list((tmp_path / "kept").glob("*.partial"))
    assert saving.it.latest.endswith("step-00000001")


def test_a_directory_that_cannot_be_made_is_refused_before_the_first_step(
    tmp_path: Path, group: dist.ProcessGroup
) -> None:
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(CheckpointError, match=r"no checkpoint can be written: .*--no-save"):
        Saving(tmp_path / "kept", group)


def test_nothing_is_left_of_the_look_at_the_directory(saving: Saving, tmp_path: Path) -> None:
    assert names(tmp_path / "kept") == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_a_checkpoint_is_on_disk_before_its_name_and_its_name_before_old_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename, or a removal, that reaches the disk first leaves no checkpoint after a crash."""
    final = tmp_path / "step-00000001"
    synced: list[tuple[str, bool]] = []
    fsync = os.fsync

    def noting(fd: int) -> None:
        fsync(fd)
        path = Path(f"/proc/self/fd/{fd}").readlink()
        synced.append((str(path.relative_to(tmp_path.resolve())), final.exists()))

    monkeypatch.setattr(os, "fsync", noting)
    writer = storage.Writer(final, 1, lambda: synced.append(("old ones go", final.exists())))
    save(state(), storage_writer=writer, no_dist=True)
    *before, parent, then = synced
    partial = "step-00000001.partial"
    files = ("rank-00000.safetensors", ".metadata", "manifest.json")
    assert sorted(before) == sorted([(partial, False), *((f"{partial}/{f}", False) for f in files)])
    assert before[-1] == (partial, False), "the names of the files, after the files"
    assert parent == (".", True)
    assert then == ("old ones go", True)
    assert committed(tmp_path) == [final]
