"""Data for the recipes: handwritten digits, and text as bytes; nothing is downloaded.

Digits: 1797 images of 8x8 pixels. `digits.npz` holds `images` (uint8 [1797, 8, 8], values
0..16) and `labels` (uint8 [1797], 0..9) in the order in which scikit-learn 1.x's `load_digits`
returns them; it was written once, with numpy.savez_compressed, so that training needs no
scikit-learn. Origin: the test set of "Optical Recognition of Handwritten Digits", E. Alpaydin
and C. Kaynak, UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, licence
CC BY 4.0.

Text: the source of Python's own standard library, some 11 MB that every machine has, or a
folder of your own. A token is a byte, except in .bin files, which hold uint16 (as nanoGPT's).
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distrun.train.config import ConfigError, TrainConfig
from distrun.train.order import rows_of_step

SIZE = 1797
TRAIN_SIZE = 1440  # 80 %, and a number with many divisors: 6 batches of 240 with nothing left over


class Digits(NamedTuple):
    """The two splits; N is 1440 for train and 357 for test."""

    train_images: Tensor
    """[N, 8, 8] float32, 0..1."""
    train_labels: Tensor
    """[N] int64, 0..9."""
    test_images: Tensor
    """[N, 8, 8] float32, 0..1."""
    test_labels: Tensor
    """[N] int64, 0..9."""


def split() -> tuple[Tensor, Tensor]:
    """Return the row numbers of the train and of the test split, the same in every process.

    The file is ordered by writer, so the rows are shuffled first: both splits see every
    writer. RandomState and not default_rng, because numpy froze its stream for good.
    """
    rows = torch.from_numpy(np.random.RandomState(0).permutation(SIZE))
    return rows[:TRAIN_SIZE], rows[TRAIN_SIZE:]


def load_digits() -> Digits:
    """Read the file beside this one and split it."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        # A pixel counts the inked dots of a 4x4 cell, 0..16; a network starts best on 0..1.
        images = torch.from_numpy(file["images"]).float() / 16
        labels = torch.from_numpy(file["labels"]).long()  # cross_entropy wants int64
    train, test = split()
    return Digits(images[train], labels[train], images[test], labels[test])


# -- text ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """Which slice of each global batch a rank takes: that of its place among the data ranks."""

    rank: int = 0
    count: int = 1


class Windows(Dataset[Tensor]):
    """The windows of one split; item i is this rank's part of step i: [accumulate, rows, T + 1].

    Which windows a step takes depends on (seed, step) alone, so resuming is to go on counting,
    and every world size trains on the same batches.
    """

    def __init__(self, files: list[Path], config: TrainConfig, vocab_size: int, shard: Shard):
        self._files = [_mapped(file) for file in files]
        self._config, self._vocab_size, self._shard = config, vocab_size, shard
        lengths = [max(0, (len(file) - 1) // config.seq_len) for file in self._files]
        self._ends = np.cumsum(lengths)
        self.count = int(self._ends[-1]) if lengths else 0
        if not self.count:
            raise ConfigError(
                f"--data {config.data!r} has no window of --seq-len {config.seq_len} tokens"
            )

    def __len__(self) -> int:
        return self._config.steps

    def __getitem__(self, step: int) -> Tensor:
        config, shard = self._config, self._shard
        rows = rows_of_step(config.seed, step, config.batch_size, self.count)
        per_micro = config.batch_size // config.accumulate  # of all ranks
        mine = rows.reshape(config.accumulate, per_micro)  # micro-batches of the global batch …
        mine = np.split(mine, shard.count, axis=1)[shard.rank]  # … and this rank's part of each
        tokens = np.stack([[self._window(int(row)) for row in micro] for micro in mine])
        if (most := int(tokens.max())) >= self._vocab_size:
            raise ConfigError(
                f"--data {config.data!r} holds token {most}, and the model's vocabulary ends at"
                f" {self._vocab_size - 1}: a --size with a larger one, or data made for this one"
            )
        return torch.from_numpy(tokens)  # int64

    def _window(self, row: int) -> NDArray[np.int64]:
        file = int(np.searchsorted(self._ends, row, side="right"))
        first = row - (int(self._ends[file - 1]) if file else 0)
        start = first * self._config.seq_len
        return self._files[file][start : start + self._config.seq_len + 1].astype(np.int64)


def batches(windows: Windows, start: int, device: torch.device) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (step, tokens, targets) from a step on; both [accumulate, rows, T] on the device.

    Targets are the tokens one place later.
    """
    config, on_gpu = windows._config, device.type == "cuda"
    loader = DataLoader(
        windows,
        batch_size=None,  # an item is a batch already
        sampler=range(start, config.steps),
        num_workers=config.workers,
        pin_memory=on_gpu,  # the copy to the GPU then runs beside the computation
    )
    for step, tokens in zip(range(start, config.steps), loader, strict=True):
        moved = tokens.to(device, non_blocking=on_gpu)
        yield step, moved[..., :-1], moved[..., 1:]


def open_text(config: TrainConfig, vocab_size: int, shard: Shard) -> tuple[Windows, Windows]:
    """Return the windows for training and for validation.

    Raises:
        ConfigError: The folder has no text, or tokens that the model has not.
    """
    train, validation = _own_files(Path(config.data)) if config.data else _library()
    return (
        Windows(train, config, vocab_size, shard),
        Windows(validation, config, vocab_size, shard),
    )


def _mapped(file: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if not file.stat().st_size:
        return np.zeros(0, np.uint8)  # nothing to map
    return np.memmap(file, np.uint16 if file.suffix == ".bin" else np.uint8, mode="r")


def _own_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return a folder's files; those named val… are for validation, else every tenth is."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".txt", ".bin") and p.is_file())
    if not files:
        found = "is no folder" if not folder.is_dir() else "has no .txt or .bin file"
        raise ConfigError(f"--data {str(folder)!r} {found}")
    validation = [file for file in files if file.name.startswith("val")] or files[9::10]
    train = [file for file in files if file not in validation]
    return train or files, validation or files[-1:]


def _library() -> tuple[list[Path], list[Path]]:
    """Return the standard library as two files, written once to the user's cache."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__"}
    sources = sorted(p for p in root.rglob("*.py") if not skipped & set(p.relative_to(root).parts))
    names = "\n".join(f"{p.relative_to(root)} {p.stat().st_size}" for p in sources)
    key = hashlib.sha256(names.encode()).hexdigest()[:12]  # another Python, another file
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distrun"
    parts = {"train": sources, "validation": sources[19::20]}
    parts["train"] = [p for i, p in enumerate(sources) if i % 20 != 19]
    return tuple([_joined(cache / f"python-{key}-{n}.txt", p)] for n, p in parts.items())  # type: ignore[return-value]


def _joined(file: Path, sources: list[Path]) -> Path:
    """Write the sources one behind the other, unless that was done; ranks may race."""
    if file.exists():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fd, partial = tempfile.mkstemp(dir=file.parent, prefix=file.name)
    except OSError:  # a home that cannot be written
        fd, partial = tempfile.mkstemp(prefix=file.name)
        file = Path(tempfile.gettempdir()) / file.name
    with open(fd, "wb") as joined:
        for source in sources:
            joined.write(source.read_bytes())
    Path(partial).replace(file)
    return file
