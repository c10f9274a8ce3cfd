"""Data for the recipes: handwritten digits, and text as bytes; nothing is downloaded.

Digits: 1797 images of 8x8 pixels. `digits.npz` holds `images` (uint8 [1797, 8, 8], values
0..16) and `labels` (uint8 [1797], 0..9) in the order in which scikit-learn 1.x's `load_digits`
returns them; it was written once, with numpy.savez_compressed, so that training needs no
scikit-learn. Origin: the test set of "Optical Recognition of Handwritten Digits", E. Alpaydin
and C. Kaynak, UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, licence
CC BY 4.0.

Text: the source of Python's own standard library, some 11 MB that every machine has, or a
folder of your own. A token is a byte, except in .bin files, which hold uint16 (as nanoGPT's),
and in .bin32 files, which hold uint32: a vocabulary of more than 65536 words needs them.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from model import model_config
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distrun.train.config import ConfigError, TextConfig, WindowConfig

Text = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32]
TOKENS: dict[str, type[Any]] = {".txt": np.uint8, ".bin": np.uint16, ".bin32": np.uint32}
"""What a file holds, by its suffix."""
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

    def to(self, device: torch.device) -> Digits:
        """Return the same on a device."""
        return Digits(*(tensor.to(device) for tensor in self))


def split() -> tuple[Tensor, Tensor]:
    """Return the row numbers of the train and of the test split, the same in every process.

    The file is ordered by writer, so the rows are shuffled first: both splits see every
    writer. RandomState and not default_rng, because numpy froze its stream for good.
    """
    rows = torch.from_numpy(np.random.RandomState(0).permutation(SIZE))
    return rows[:TRAIN_SIZE], rows[TRAIN_SIZE:]


def load_digits(dtype: torch.dtype = torch.float32) -> Digits:
    """Read the file beside this one and split it."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        # A pixel counts the inked dots of a 4x4 cell, 0..16; a network starts best on 0..1.
        images = torch.from_numpy(file["images"]).to(dtype) / 16
        labels = torch.from_numpy(file["labels"]).long()  # cross_entropy wants int64
    train, test = split()
    return Digits(images[train], labels[train], images[test], labels[test])


# -- text ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """Which slice of each global batch a rank takes: its place among the ranks of other data."""

    rank: int = 0
    count: int = 1


class Windows(Dataset[Tensor]):
    """The windows of one split; item i is this rank's part of step i: [accumulate, rows, T + 1].

    Which windows a step takes depends on (seed, step) alone, so resuming is to go on counting,
    and every world size trains on the same batches.
    """

    def __init__(
        self, texts: list[Text], config: WindowConfig, shard: Shard, vocab_size: int
    ) -> None:
        self._texts = texts
        self.config, self._shard = config, shard
        self._vocab_size = vocab_size
        lengths = [max(0, (len(text) - 1) // config.seq_len) for text in texts]
        self._ends = np.cumsum(lengths)
        self.count = int(self._ends[-1]) if lengths else 0
        if not self.count:
            raise ConfigError(
                f"--data {config.data!r} has no window of --seq-len {config.seq_len} tokens"
            )

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, step: int) -> Tensor:
        config, shard = self.config, self._shard
        rows = rows_of_step(config.seed, step, config.batch_size, self.count)
        # micro-batches of the global batch, and this rank's part of each: [accumulate, rows]
        mine = rows.reshape(config.accumulate, shard.count, -1)[:, shard.rank]
        tokens = np.stack([[self._window(int(row)) for row in micro] for micro in mine])
        if (most := int(tokens.max())) >= self._vocab_size:
            raise ConfigError(
                f"--data {config.data!r} holds token {most}, and the model's vocabulary ends at"
                f" {self._vocab_size - 1}: a --size with a larger one, or data made for this one"
            )
        return torch.from_numpy(tokens)  # int64

    def _window(self, row: int) -> NDArray[np.int64]:
        i = int(np.searchsorted(self._ends, row, side="right"))
        start = (row - (int(self._ends[i - 1]) if i else 0)) * self.config.seq_len
        return self._texts[i][start : start + self.config.seq_len + 1].astype(np.int64)


Batch = Callable[[int, Windows], tuple[Tensor, Tensor]]


def rows_of_step(seed: int, step: int, batch_size: int, count: int) -> NDArray[np.int64]:
    """Return the windows of a step, of all ranks together: [batch_size] of 0 … count-1.

    Every window comes once an epoch, in another order each epoch, and none is kept in memory:
    the order of epoch e is i -> (a·i + b) mod count, with a coprime to count, drawn from
    (seed, e). So the place in the data is the step alone, at any number of ranks.
    """
    rows = []
    for place in range(step * batch_size, (step + 1) * batch_size):
        epoch, i = divmod(place, count)
        factor, offset = _order(seed, epoch, count)
        rows.append((factor * i + offset) % count)
    return np.array(rows, np.int64)


@functools.lru_cache(maxsize=16)  # drawing it anew for each step takes longer than all the rest
def _order(seed: int, epoch: int, count: int) -> tuple[int, int]:
    """Return a and b of an epoch."""
    draw = np.random.default_rng((seed, epoch))
    factor = int(draw.integers(1, max(2, count)))
    while math.gcd(factor, count) != 1:
        factor += 1
    return factor, int(draw.integers(count))


class Steps(Dataset[tuple[Tensor, Tensor]]):
    """What a recipe's `batch` makes of each step; workers may call it."""

    def __init__(self, batch: Batch, windows: Windows) -> None:
        self._batch, self._windows = batch, windows

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        return self._batch(step, self._windows)


def batches(
    batch: Batch, windows: Windows, start: int, device: torch.device
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (step, tokens, targets) from a step on, as `batch` gives them, on the device."""
    config, on_gpu = windows.config, device.type == "cuda"
    loader = DataLoader(
        Steps(batch, windows),
        batch_size=None,  # an item is a batch already
        sampler=range(start, config.steps),
        num_workers=config.workers,
        pin_memory=on_gpu,  # the copy to the GPU then runs beside the computation
        generator=torch.Generator(),  # else it draws from the one that a resumed run restores
    )
    for step, (tokens, targets) in zip(range(start, config.steps), loader, strict=True):
        yield step, *(part.to(device, non_blocking=on_gpu) for part in (tokens, targets))


def as_text(tokens: Tensor) -> str:
    """Return bytes as text; tokens of a larger vocabulary as their numbers: [T]."""
    numbers = tokens.tolist()
    if max(numbers) > 255:
        return " ".join(map(str, numbers))
    return bytes(numbers).decode(errors="replace")


def open_text(config: TextConfig, shard: Shard) -> tuple[Windows, Windows]:
    """Return the windows for training and for validation, for the GPT of `config.size`."""
    return open_windows(config, shard, model_config(config.size).vocab_size)


def open_windows(config: WindowConfig, shard: Shard, vocab_size: int) -> tuple[Windows, Windows]:
    """Return the windows for training and for validation.

    Raises:
        ConfigError: The folder has no text, or less than one window of it.
    """
    train, validation = _own(Path(config.data)) if config.data else _library()
    return Windows(train, config, shard, vocab_size), Windows(validation, config, shard, vocab_size)


def require_text(config: TextConfig, world_size: int) -> None:
    """Refuse data that cannot be used before any process group is there.

    Raises:
        ConfigError: There is no text, or it has tokens that the model has not.
    """
    for windows in open_text(config, Shard()):
        windows[0]


def _mapped(file: Path) -> Text:
    token, nbytes = np.dtype(TOKENS[file.suffix]), file.stat().st_size
    if nbytes % token.itemsize:
        raise ConfigError(
            f"--data: {str(file)!r} has {nbytes} bytes, no multiple of {token.itemsize}: a token"
            f" of a {file.suffix} file is {token.name}"
        )
    if not nbytes:
        return np.zeros(0, np.uint8)  # nothing to map
    return np.memmap(file, token, mode="r")


def _own(folder: Path) -> tuple[list[Text], list[Text]]:
    """Map a folder's files; those named val… are for validation, else the last tenth of each."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in TOKENS and p.is_file())
    if not files:
        found = "has no .txt, .bin or .bin32 file" if folder.is_dir() else "is no folder"
        raise ConfigError(f"--data {str(folder)!r} {found}")
    validation = [_mapped(file) for file in files if file.name.startswith("val")]
    train = [_mapped(file) for file in files if not file.name.startswith("val")]
    if validation and train:
        return train, validation
    whole = [(text, len(text) * 9 // 10) for text in train or validation]
    return [text[:end] for text, end in whole], [text[end:] for text, end in whole]


def _library() -> tuple[list[Text], list[Text]]:
    """Map the standard library, every 20th file for validation; it is written to a cache once."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__"}
    sources = sorted(p for p in root.rglob("*.py") if not skipped & set(p.relative_to(root).parts))
    names = "\n".join(f"{p.relative_to(root)} {p.stat().st_size}" for p in sources)
    key = hashlib.sha256(names.encode()).hexdigest()[:12]  # another Python, another file
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distrun"
    parts = {"train": [p for i, p in enumerate(sources) if i % 20 != 19]}
    parts["validation"] = sources[19::20]
    train, validation = (_joined(cache / f"python-{key}-{n}.txt", p) for n, p in parts.items())
    return [_mapped(train)], [_mapped(validation)]


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
