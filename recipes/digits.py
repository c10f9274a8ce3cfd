"""Real handwritten digits for the recipes: 1797 images of 8x8 pixels, 45 kB, no download.

`digits.npz` holds `images` (uint8 [1797, 8, 8], values 0..16) and `labels` (uint8 [1797],
0..9) in the order in which scikit-learn 1.x's `load_digits` returns them; it was written once,
with numpy.savez_compressed, so that training needs no scikit-learn.

Origin: the test set of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak,
UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

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
