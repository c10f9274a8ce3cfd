"""What is to be run on the ranks, and within which limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distrun.testing.faults import Fault

if TYPE_CHECKING:
    from distrun.comm.world import World


@dataclass(frozen=True)
class RankPlan:
    """One run of a function on several ranks."""

    fn: Callable[[World], Any]
    world_size: int
    backend: str
    timeout_s: float
    """Of the whole run."""
    comm_timeout_s: float
    """Of one collective."""
    check: bool
    faults: Sequence[Fault] = ()

    def run(self, world: World) -> Any:
        """Run the function on one rank, with the faults that it is to meet."""
        with ExitStack() as stack:
            for fault in self.faults:
                stack.enter_context(fault.on(world))
            return self.fn(world)
