"""Images for image.py: the digits that come with the recipes, or a folder of your own.

A folder has one directory per class: `train/cat/1.jpg` and `val/cat/2.jpg`, or only `cat/1.jpg`;
then every fifth image of a class is for the test. Files are read with Pillow (the extra `image`),
in the DataLoader's processes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from data import load_digits
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from distrun.train.config import ConfigError, require_package

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".tif", ".tiff"))


class Images(Dataset[tuple[Tensor, int]]):
    """Images [3, S, S] of 0..1 with their labels; item i of epoch e is the same on every rank.

    Args:
        labels: The class of each image.
        read: Returns image i.
        seed: Of the augmentation.
        shift: The most pixels by which an image is moved; 0 and no flip: images as they are.
        flip: Mirror every second image, left to right.
    """

    def __init__(
        self,
        labels: list[int],
        read: Callable[[int], Tensor],
        *,
        seed: int = 0,
        shift: int = 0,
        flip: bool = False,
    ) -> None:
        self.labels, self._read = labels, read
        self._seed, self._shift, self._flip = seed, shift, flip
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the augmentation, as DistributedSampler.set_epoch chooses the order."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = self._read(i)
        # Of (seed, epoch, image): which rank or process reads the image changes nothing.
        rng = np.random.default_rng((self._seed, self._epoch, i))
        if self._shift:
            down, right = rng.integers(0, 2 * self._shift + 1, size=2)
            size = image.shape[-1]
            bigger = pad(image, [self._shift] * 4)  # [3, S + 2 shift, S + 2 shift]
            image = bigger[:, down : down + size, right : right + size]
        if self._flip and rng.random() < 0.5:
            image = image.flip(-1)
        return image, self.labels[i]


def class_names(data: str) -> list[str]:
    """Return the names of the classes, in the order of their labels.

    Raises:
        ConfigError: The folder has none.
    """
    if not data:
        return [str(digit) for digit in range(10)]
    folder = Path(data)
    train = folder / "train" if (folder / "train").is_dir() else folder
    if not folder.is_dir():
        raise ConfigError(f"--data {data!r} is no folder")
    names = sorted(path.name for path in train.iterdir() if path.is_dir())
    if len(names) < 2:
        raise ConfigError(f"--data: {str(train)!r} needs a directory per class, and has {names}")
    return names


def open_images(
    data: str, size: int, dtype: torch.dtype, *, seed: int, shift: int, flip: bool
) -> tuple[Images, Images]:
    """Return the images for training, which are augmented, and those for the test.

    Raises:
        ConfigError: There are none.
    """
    if data:
        train, test = (_folder(files, size, dtype) for files in _files(data))
    else:
        digits = load_digits(dtype)
        train = _digits(digits.train_images, digits.train_labels)
        test = _digits(digits.test_images, digits.test_labels)
    return Images(*train, seed=seed, shift=shift, flip=flip), Images(*test)


def _digits(images: Tensor, labels: Tensor) -> tuple[list[int], Callable[[int], Tensor]]:
    return labels.tolist(), lambda i: images[i].expand(3, -1, -1)  # grey: three equal colours


def _files(data: str) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]]]:
    """Return (file, label) of the images for training and of those for the test."""
    require_package("--data", "PIL", "image")
    folder, names = Path(data), class_names(data)
    if (folder / "train").is_dir():
        train, test = (_of_classes(folder / part, names) for part in ("train", "val"))
    else:
        both = _of_classes(folder, names)
        train = [item for i, item in enumerate(both) if i % 5 != 4]
        test = both[4::5]
    for part, found in (("train on", train), ("test with", test)):
        if not found:
            raise ConfigError(f"--data {data!r} has no image to {part}")
    return train, test


def _of_classes(folder: Path, names: list[str]) -> list[tuple[Path, int]]:
    return [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((folder / name).rglob("*"))
        if file.suffix.lower() in SUFFIXES
    ]


def _folder(
    files: list[tuple[Path, int]], size: int, dtype: torch.dtype
) -> tuple[list[int], Callable[[int], Tensor]]:
    from PIL import Image, UnidentifiedImageError

    def read(i: int) -> Tensor:
        file = files[i][0]
        try:
            with Image.open(file) as image:
                square = image.convert("RGB").resize((size, size))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ConfigError(f"--data: {str(file)!r} cannot be read: {error}") from None
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)  # [S, S, 3] -> [3, S, S]
        return pixels.to(dtype) / 255

    return [label for _, label in files], read
