"""The state of every random generator of a process, as tensors, without pickle."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

_NO_GAUSS = float("nan")


def rng_state() -> dict[str, Tensor]:
    """Return the states of Python's, numpy's and torch's generators, CPU and this GPU."""
    version, words, gauss = random.getstate()
    assert version == 3, "the state of random has had this form since Python 3.2"
    numpy = np.random.get_state(legacy=False)
    state = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor(_NO_GAUSS if gauss is None else gauss, dtype=torch.float64),
        "numpy": torch.tensor(
            [*numpy["state"]["key"].tolist(), numpy["state"]["pos"], numpy["has_gauss"]],
            dtype=torch.int64,
        ),
        "numpy_gauss": torch.tensor(numpy["gauss"], dtype=torch.float64),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Tensor]) -> None:
    """Set the generators to the states that `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    gauss = state["python_gauss"].item()
    words = tuple(int(word) for word in state["python"].tolist())
    random.setstate((3, words, None if gauss != gauss else gauss))
    *keys, position, has_gauss = state["numpy"].tolist()
    cached = state["numpy_gauss"].item()
    np.random.set_state(("MT19937", np.array(keys, np.uint32), position, has_gauss, cached))
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def restore_rng(state: Mapping[str, Tensor], prefix: str, stored: Collection[str]) -> None:
    """Restore the generators if a checkpoint has all states: another world size has other ranks."""
    mine = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if all(prefix + key in stored for key in mine):
        set_rng_state(mine)
