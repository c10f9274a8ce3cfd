"""The order of the data is a function of seed and step, and takes every window once an epoch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor

from distrun.train.config import ConfigError, TextConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "recipes"))
import data

TEXT = "".join(chr(ord("a") + i % 26) for i in range(4000))


@given(count=some.integers(1, 300), batch=some.integers(1, 40), seed=some.integers(0, 2**63 - 1))
def test_every_window_comes_once_an_epoch(count: int, batch: int, seed: int) -> None:
    steps = -(-2 * count // batch)
    rows = np.concatenate([data.rows_of_step(seed, s, batch, count) for s in range(steps)])
    assert sorted(rows[:count]) == sorted(rows[count : 2 * count]) == list(range(count))


@given(step=some.integers(0, 10**6), batch=some.integers(1, 20))
def test_a_step_takes_the_same_rows_whatever_came_before(step: int, batch: int) -> None:
    again = [data.rows_of_step(3, step, batch, 1009) for _ in range(2)]
    assert (again[0] == again[1]).all()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(data.rows_of_step(seed, epoch, 101, 101)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(orders) == 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text(TEXT)
    return tmp_path


def config(folder: Path, **settings: object) -> TextConfig:
    base = {"data": str(folder), "batch_size": 8, "seq_len": 10, "steps": 5}
    return TextConfig(**{**base, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize(("accumulate", "count"), [(1, 1), (1, 4), (2, 2), (4, 2)])
def test_the_slices_of_all_ranks_are_the_batch_of_one(
    folder: Path, accumulate: int, count: int
) -> None:
    settings = config(folder, accumulate=accumulate)
    whole = data.open_text(settings, data.Shard())[0][3]
    parts = [data.open_text(settings, data.Shard(rank, count))[0][3] for rank in range(count)]
    assert whole.shape == (accumulate, 8 // accumulate, 11)
    assert torch.equal(torch.cat(parts, dim=1), whole)


def batch(step: int, windows: data.Windows) -> tuple[Tensor, Tensor]:
    """A recipe's own."""
    return windows[step][..., :-1], windows[step][..., 1:]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_go_on_from_any_step_and_targets_are_one_later(folder: Path, workers: int) -> None:
    windows, _ = data.open_text(config(folder, workers=workers), data.Shard())
    every = list(data.batches(batch, windows, 0, torch.device("cpu")))
    later = list(data.batches(batch, windows, 3, torch.device("cpu")))
    assert [step for step, _, _ in every] == [0, 1, 2, 3, 4]
    assert [step for step, _, _ in later] == [3, 4]
    assert torch.equal(later[0][1], every[3][1]) and torch.equal(later[1][2], every[4][2])
    assert torch.equal(every[0][1][..., 1:], every[0][2][..., :-1])


def test_training_and_validation_share_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(900) + bytes([1]) * 100)
    train, validation = data.open_text(config(tmp_path, batch_size=1), data.Shard())
    assert all(train[step].max() == 0 for step in range(200))
    assert all(validation[step].min() == 1 for step in range(20))


def test_files_named_val_are_for_validation(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(bytes(200))
    (tmp_path / "val.txt").write_bytes(bytes([1]) * 200)
    train, validation = data.open_text(config(tmp_path, batch_size=1), data.Shard())
    assert train[0].max() == 0 and validation[0].min() == 1


@pytest.mark.parametrize(
    ("name", "token", "size", "first"),
    [
        ("a.txt", np.uint8, "tiny", 0),
        ("a.bin", np.uint16, "124M", 50_000),
        ("a.bin32", np.uint32, "8B", 128_000),  # more than two bytes can say
    ],
)
def test_the_suffix_tells_how_many_bytes_a_token_has(
    tmp_path: Path, name: str, token: type, size: str, first: int
) -> None:
    (first + np.arange(200)).astype(token).tofile(tmp_path / name)
    train, _ = data.open_text(config(tmp_path, batch_size=1, size=size), data.Shard())
    window = train[0][0, 0]
    assert window[0] >= first
    assert torch.equal(window, torch.arange(11) + window[0])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: None, "has no .txt, .bin or .bin32 file"),
        (lambda d: (d / "a.txt").write_text("short"), "has no window of --seq-len 10 tokens"),
        (lambda d: (d / "a.txt").write_text(""), "has no window of --seq-len 10 tokens"),
        (
            lambda d: np.full(500, 50_000, np.uint16).tofile(d / "a.bin"),
            "holds token 50000, and the model's vocabulary ends at 255",
        ),
        (
            lambda d: (d / "odd.bin").write_bytes(bytes(401)),
            "odd.bin' has 401 bytes, no multiple of 2: a token of a .bin file is uint16",
        ),
        (
            lambda d: (d / "val.bin32").write_bytes(bytes(402)),
            "val.bin32' has 402 bytes, no multiple of 4: a token of a .bin32 file is uint32",
        ),
    ],
)
def test_data_that_cannot_be_used_is_refused(tmp_path: Path, make: object, said: str) -> None:
    assert callable(make)
    make(tmp_path)
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        data.require_text(config(tmp_path), 1)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere' is no folder"):
        data.require_text(config(tmp_path / "nowhere"), 1)


def test_the_library_is_written_once_and_split_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = TextConfig(batch_size=2)
    train, validation = data.open_text(settings, data.Shard())
    files = sorted((tmp_path / "distrun").iterdir())
    assert len(files) == 2 and train.count > 10 * validation.count > 1000
    before = [file.stat().st_mtime_ns for file in files]
    data.open_text(settings, data.Shard())
    assert [file.stat().st_mtime_ns for file in files] == before
