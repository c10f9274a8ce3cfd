"""The random numbers of ranks that are threads: each has its own, as processes have."""

from __future__ import annotations

import random
import sys
from typing import Any, NamedTuple

import torch


class RandomState(NamedTuple):
    """Where the generators of torch, `random` and numpy stand."""

    torch: torch.Tensor
    python: Any
    numpy: Any
    """None where numpy was not imported."""

    @classmethod
    def now(cls) -> RandomState:
        """Return the state of this moment."""
        numpy = sys.modules.get("numpy")
        state = numpy.random.get_state() if numpy else None
        return cls(torch.get_rng_state(), random.getstate(), state)

    def restore(self) -> None:
        """Go on from this state."""
        torch.set_rng_state(self.torch)
        random.setstate(self.python)
        numpy = sys.modules.get("numpy")
        if numpy and self.numpy is not None:
            numpy.random.set_state(self.numpy)


def states_of_ranks(world_size: int) -> list[RandomState]:
    """Return a state for each rank, all different, and the same again after torch.manual_seed.

    Leaves the generators as they are.
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
