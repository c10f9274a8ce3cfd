"""Random numbers of ranks that are threads: each rank has its own generators, as processes do."""

from __future__ import annotations

import random
import sys
from typing import Any, NamedTuple

import torch


class RandomState(NamedTuple):
    """State of the generators of torch, `random` and numpy."""

    torch: torch.Tensor
    python: Any
    numpy: Any
    """None if numpy was not imported."""

    @classmethod
    def now(cls) -> RandomState:
        """Return the current state."""
        numpy = sys.modules.get("numpy")
        state = numpy.random.get_state() if numpy else None
        return cls(torch.get_rng_state(), random.getstate(), state)

    def restore(self) -> None:
        """Set the generators to this state."""
        torch.set_rng_state(self.torch)
        random.setstate(self.python)
        numpy = sys.modules.get("numpy")
        if numpy and self.numpy is not None:
            numpy.random.set_state(self.numpy)


def states_of_ranks(world_size: int) -> list[RandomState]:
    """Return a different state for each rank; the same states again after torch.manual_seed.

    Does not change the generators.
    """
    before = RandomState.now()
    seeds = torch.randint(2**32, (world_size,)).tolist()
    made = []
    for seed in seeds:
        torch.manual_seed(seed)
        random.seed(seed)
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed(seed)
        made.append(RandomState.now())
    before.restore()
    return made
