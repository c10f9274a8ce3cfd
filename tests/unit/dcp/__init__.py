"""Checkpoints made here by one process, for the tests beside this file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from distrun.dcp.storage import Reader, Writer


def save_checkpoint(path: Path, step: int, state: Mapping[str, Tensor]) -> None:
    """Write a checkpoint without a process group."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that there is no process group
        save(dict(state), storage_writer=Writer(path, step), no_dist=True)


def load_checkpoint(path: Path, state: dict[str, Tensor]) -> None:
    """Fill tensors from a checkpoint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(state, storage_reader=Reader(path), no_dist=True)
